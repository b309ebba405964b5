//! A stream over loopback by our record layer and by tokio-rustls, which take turns in the same run.
//!
//! Each end has a thread of its own; what counts is the CPU time of that thread, the kernel's share included. Every figure
//! is the median over rounds, a ratio is taken within a round.
//!
//! `cargo bench -p sealift-net [-- ROUNDS]`

mod buffered;

use rustix::time::{ClockId, clock_gettime};
use sealift_net::{Acceptor, AcceptorOptions, Cipher, Dialer, Listener, ServedJob};
use sealift_proto::keys::RoSecret;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// One run of blocks, as the program sends them.
const WRITE_BYTES: usize = 1 << 20;
/// What a frame's writer hands down at a time.
const PART_BYTES: usize = 256 << 10;
const WARM_WRITES: usize = 16;
const WRITES: usize = 512;

/// Whose records.
#[derive(Clone, Copy, PartialEq)]
enum Layer {
    Buffered,
    Ours,
}

type Reader = Box<dyn AsyncRead + Unpin>;
type Writer = Box<dyn AsyncWrite + Unpin>;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(9);
    println!(
        "CPU time of each end, loopback, {} KiB written at a time, median of {rounds} rounds",
        WRITE_BYTES >> 10
    );
    for cipher in Cipher::ALL {
        for dialer_sends in [true, false] {
            let sender = if dialer_sends { "dialer" } else { "listener" };
            println!("{cipher}, the {sender} sends:");
            let (mut old, mut new): (Vec<[f64; 3]>, Vec<[f64; 3]>) = Default::default();
            for _ in 0..rounds {
                old.push(race(Layer::Buffered, cipher, dialer_sends));
                new.push(race(Layer::Ours, cipher, dialer_sends));
            }
            for (column, what) in ["sending", "receiving", "both ends"].into_iter().enumerate() {
                let ratio = old.iter().zip(&new).map(|(old, new)| new[column] / old[column]).collect();
                println!(
                    "  {what:9}  tokio-rustls {:5.2} GB/s  ours {:5.2} GB/s  x{:.2}",
                    median(old.iter().map(|speeds| speeds[column]).collect()),
                    median(new.iter().map(|speeds| speeds[column]).collect()),
                    median(ratio),
                );
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// GB for each second of CPU: of the sender, of the receiver, of both.
fn race(layer: Layer, cipher: Cipher, dialer_sends: bool) -> [f64; 3] {
    let (tell, address) = mpsc::channel();
    let listening = on_a_thread(layer, !dialer_sends, async move || listen(layer, cipher, tell).await);
    let address = address.recv().expect("the listener says where it is");
    let dialing = on_a_thread(layer, dialer_sends, async move || dial(layer, address).await);
    let [dialed, listened] = [dialing, listening].map(|end| end.join().expect("an end of the stream"));
    let (sent, received) = if dialer_sends { (dialed, listened) } else { (listened, dialed) };
    #[allow(clippy::cast_precision_loss)]
    let gigabytes = (WRITES * WRITE_BYTES) as f64 / 1e9;
    [sent, received, sent + received].map(|took| gigabytes / took.as_secs_f64())
}

/// Runs an end. The thread's name tells them apart in profiles.
fn on_a_thread(
    layer: Layer,
    sends: bool,
    open: impl AsyncFnOnce() -> (Reader, Writer) + Send + 'static,
) -> JoinHandle<Duration> {
    let layer = if layer == Layer::Ours { "ours" } else { "buffered" };
    let name = format!("{layer} {}", if sends { "out" } else { "in" });
    let end = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (reader, writer) = open().await;
            carry(reader, writer, sends).await
        })
    };
    std::thread::Builder::new().name(name).spawn(end).expect("a thread")
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a time since the thread's start")
}

/// Sends or receives all, and says how much CPU that took after a while of warming up.
async fn carry(mut reader: Reader, mut writer: Writer, sends: bool) -> Duration {
    let mut data = vec![7; WRITE_BYTES];
    let mut begin = cpu_time();
    for nth in 0..WARM_WRITES + WRITES {
        if nth == WARM_WRITES {
            begin = cpu_time();
        }
        if sends {
            for part in data.chunks(PART_BYTES) {
                writer.write_all(part).await.expect("the receiver reads");
            }
            writer.flush().await.expect("the receiver reads");
        } else {
            reader.read_exact(&mut data).await.expect("the sender sends");
        }
    }
    let took = cpu_time() - begin;
    if sends {
        writer.shutdown().await.expect("the receiver reads");
    }
    // The other half ends with the connection, which the sender must not drop before all has arrived.
    let _ = reader.read(&mut data).await;
    took
}

fn secret() -> RoSecret {
    RoSecret::from_bytes(&[7; 32])
}

async fn listen(layer: Layer, cipher: Cipher, tell: mpsc::Sender<SocketAddr>) -> (Reader, Writer) {
    if layer == Layer::Buffered {
        let (reader, writer) = buffered::listen(cipher, tell).await;
        return (Box::new(reader), Box::new(writer));
    }
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let acceptor =
        Acceptor::new(vec![ServedJob { ro: secret(), cipher }], AcceptorOptions::new().expect("randomness"));
    tell.send(listener.local_addr()).expect("the dialer waits");
    let accepted = acceptor.handshake(listener.accept().await).await.expect("a session");
    let (reader, writer) = accepted.connection.split();
    (Box::new(reader), Box::new(writer))
}

async fn dial(layer: Layer, address: SocketAddr) -> (Reader, Writer) {
    if layer == Layer::Buffered {
        let (reader, writer) = buffered::dial(address).await;
        return (Box::new(reader), Box::new(writer));
    }
    let connection = Dialer::new(secret()).dial_one(address).await.expect("a session");
    let (reader, writer) = connection.split();
    (Box::new(reader), Box::new(writer))
}
