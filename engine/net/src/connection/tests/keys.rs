//! Much data both ways, in writes of all sizes, while both ends change their keys.

use super::{BOTH, Theirs, session};
use crate::cipher::Cipher;
use crate::connection::Connection;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsStream;

/// Sizes of writes that add up to so much; the same ones every time.
fn sizes(total: usize) -> Vec<usize> {
    let size = proptest::prop_oneof![1..200_usize, 1..40_000_usize, 1..700_000_usize];
    let (mut runner, mut sizes, mut left) = (TestRunner::deterministic(), Vec::new(), total);
    while left > 0 {
        sizes.push(size.new_tree(&mut runner).unwrap().current().min(left));
        left -= sizes[sizes.len() - 1];
    }
    sizes
}

/// The bytes of a stream from a place on.
fn fill(buffer: &mut [u8], place: usize, seed: u64) {
    for (at, byte) in buffer.iter_mut().enumerate() {
        let word = ((place + at) as u64 / 8 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *byte = word.to_le_bytes()[(place + at) % 8];
    }
}

fn refresh(theirs: &mut Theirs) {
    match theirs {
        TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys(),
        TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys(),
    }
    .unwrap();
}

/// Reads a whole stream, in reads of all sizes.
async fn check(reader: &mut (impl tokio::io::AsyncRead + Unpin), total: usize, seed: u64) {
    let (mut place, mut buffer, mut expected) = (0, vec![0; 700_000], vec![0; 700_000]);
    let sizes = sizes(total);
    for size in sizes.iter().rev().cycle() {
        let count = reader.read(&mut buffer[..*size]).await.unwrap();
        if count == 0 {
            break;
        }
        fill(&mut expected[..count], place, seed);
        assert!(buffer[..count] == expected[..count], "other bytes came near {place}");
        place += count;
    }
    assert_eq!(place, total);
}

/// Sends so much each way at once, ends both ways, and says how far our last key had come.
async fn exchange(ours: Connection, theirs: Theirs, total: usize, limit: u64) -> u64 {
    let (mut reader, mut writer) = ours.split();
    writer.limit_to(limit);
    let sending = async {
        let (mut place, mut buffer) = (0, vec![0; 700_000]);
        for size in sizes(total) {
            fill(&mut buffer[..size], place, 1);
            writer.write_all(&buffer[..size]).await.unwrap();
            place += size;
        }
        writer.shutdown().await.unwrap();
    };
    let (mut their_reader, mut their_writer) = tokio::io::split(theirs);
    let their_sending = async {
        let (mut place, mut buffer) = (0, vec![0; 700_000]);
        for size in sizes(total) {
            fill(&mut buffer[..size], place, 2);
            their_writer.write_all(&buffer[..size]).await.unwrap();
            their_writer.flush().await.unwrap();
            place += size;
        }
        their_writer.shutdown().await.unwrap();
    };
    tokio::join!(sending, their_sending, check(&mut reader, total, 2), check(&mut their_reader, total, 1));
    writer.limit_to(limit)
}

#[tokio::test]
async fn much_data_both_ways() {
    for ours in BOTH {
        let (connection, theirs) = session(ours, Cipher::Aes256Gcm).await;
        let sealed = exchange(connection, theirs, 64 << 20, 1 << 24).await;
        assert!(sealed > 4096, "one key did");
    }
}

#[tokio::test]
async fn our_keys_are_changed_in_time() {
    for ours in BOTH {
        for cipher in Cipher::ALL {
            for limit in [3, 17, 100] {
                let (connection, theirs) = session(ours, cipher).await;
                let sealed = exchange(connection, theirs, 4 << 20, limit).await;
                assert!(sealed < limit, "{ours:?} {cipher}: {sealed} of {limit} records");
            }
        }
    }
}

#[tokio::test]
async fn their_new_keys_are_followed_and_answered() {
    for ours in BOTH {
        for cipher in Cipher::ALL {
            let (connection, mut theirs) = session(ours, cipher).await;
            let (mut reader, mut writer) = connection.split();
            let mut received = [0; 100];
            for round in 0..200_u8 {
                let before = writer.limit_to(1 << 24);
                if round % 2 == 0 {
                    refresh(&mut theirs);
                }
                theirs.write_all(&[round; 100]).await.unwrap();
                theirs.flush().await.unwrap();
                reader.read_exact(&mut received).await.unwrap();
                assert_eq!(received, [round; 100]);
                writer.write_all(&[!round; 50]).await.unwrap();
                writer.flush().await.unwrap();
                theirs.read_exact(&mut received[..50]).await.unwrap();
                assert_eq!(received[..50], [!round; 50]);
                let after = writer.limit_to(1 << 24);
                let expected = if round % 2 == 0 { 1 } else { before + 1 };
                assert_eq!(after, expected, "they asked for another key every other time");
            }
        }
    }
}

#[tokio::test]
async fn both_change_keys_at_once() {
    for ours in BOTH {
        let (connection, mut theirs) = session(ours, Cipher::Aes128Gcm).await;
        let (mut reader, mut writer) = connection.split();
        writer.limit_to(5);
        for round in 0..100 {
            refresh(&mut theirs);
            let (sent, answer) = (vec![round; 70_000], vec![!round; 50_000]);
            let (mut received, mut answered) = (vec![0; sent.len()], vec![0; answer.len()]);
            let their_side = async {
                theirs.write_all(&sent).await?;
                theirs.flush().await?;
                theirs.read_exact(&mut answered).await
            };
            let our_side = async {
                writer.write_all(&answer).await?;
                reader.read_exact(&mut received).await
            };
            let (theirs, ours) = tokio::join!(their_side, our_side);
            theirs.and(ours).unwrap();
            assert!(sent == received && answer == answered, "round {round}");
        }
    }
}
