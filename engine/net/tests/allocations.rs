//! A session that is under way allocates nothing: not for a record, not for a megabyte. Alone in its process, whose
//! allocations it counts.

use sealift_net::{Acceptor, AcceptorOptions, Cipher, Dialer, Listener, ServedJob};
use sealift_proto::keys::RoSecret;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MIB: usize = 1 << 20;

async fn carry(
    writer: &mut (impl AsyncWrite + Unpin),
    sent: &[u8],
    reader: &mut (impl AsyncRead + Unpin),
    received: &mut [u8],
    times: usize,
) {
    let sending = async {
        for _ in 0..times {
            // A frame's header and its body, so that records lie across what is read.
            writer.write_all(&sent[..20]).await?;
            writer.write_all(&sent[20..]).await?;
        }
        writer.flush().await
    };
    let receiving = async {
        for _ in 0..times {
            reader.read_exact(&mut received[..20]).await?;
            reader.read_exact(&mut received[20..]).await?;
        }
        std::io::Result::Ok(())
    };
    let (sent, received) = tokio::join!(sending, receiving);
    sent.and(received).expect("both ends are here");
}

#[tokio::test]
async fn data_is_moved_without_allocations() {
    for cipher in Cipher::ALL {
        let ro = RoSecret::from_bytes(&[1; 32]);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let jobs = vec![ServedJob { ro: ro.clone(), cipher }];
        let acceptor = Acceptor::new(jobs, AcceptorOptions::new().unwrap());
        let dialer = Dialer::new(ro);
        let taking = async { acceptor.handshake(listener.accept().await).await };
        let (dialed, taken) = tokio::join!(dialer.dial_one(listener.local_addr()), taking);
        let (mut reader, mut writer) = dialed.unwrap().split();
        let (mut their_reader, mut their_writer) = taken.unwrap().connection.split();

        let sent: Vec<u8> = (0..=250).cycle().take(MIB + 20).collect();
        let mut received = vec![0; sent.len()];
        carry(&mut writer, &sent, &mut their_reader, &mut received, 2).await;
        carry(&mut their_writer, &sent, &mut reader, &mut received, 2).await;
        let region = Region::new(ALLOCATOR);
        carry(&mut writer, &sent, &mut their_reader, &mut received, 64).await;
        carry(&mut their_writer, &sent, &mut reader, &mut received, 64).await;
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{cipher}");
        assert!(received == sent);
    }
}
