//! What the wire gives: TCP with some connections, plain and with TLS 1.3, to this host or another.

mod serve;
mod tls;

use crate::failure::{OrFailure as _, Outcome, failure};
use crate::results::{Clock, Report};
use crate::turns::{Turns, TurnsArgs, Watch};
use crate::units::{parse_bytes, several, show_bytes};
use clap::Args;
use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Barrier;
use std::time::Duration;

/// Where a server listens unless it is told otherwise.
const PORT: u16 = 3949;

/// The command line of `wire`.
#[derive(Clone, Debug, Args)]
pub struct WireArgs {
    /// A host where `sealift-bench wire --serve` runs [default: a server in this process, on the loopback interface]
    #[arg(value_name = "HOST:PORT", conflicts_with = "serve")]
    pub host: Option<String>,
    /// Serve others until it is stopped. What they send is thrown away, and there is no secret: anybody may send
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, default_missing_value = "[::]:3949")]
    pub serve: Option<SocketAddr>,
    /// Bytes that are sent in one turn, over all connections together
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_bytes)]
    pub bytes: u64,
    /// Numbers of connections
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1, 2, 4])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub connections: Vec<u32>,
    /// Bytes in one write
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = parse_bytes)]
    pub write_bytes: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub turns: TurnsArgs,
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Aes128Gcm,
    Aes256Gcm,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Plain, Self::Aes128Gcm, Self::Aes256Gcm];

    /// As the first byte of a connection says it.
    fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Aes128Gcm => 1,
            Self::Aes256Gcm => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain TCP",
            Self::Aes128Gcm => "TLS 1.3, AES-128-GCM",
            Self::Aes256Gcm => "TLS 1.3, AES-256-GCM",
        }
    }
}

/// Runs the command. Whether every result counts.
pub fn run(args: &WireArgs) -> Outcome<bool> {
    if let Some(address) = args.serve {
        let server = serve::Server::bind(address).or_failure(|| format!("cannot listen on {address}"))?;
        eprintln!(
            "Serving on {}. On the other host: sealift-bench wire HOST:{}",
            server.address,
            server.address.port()
        );
        return server.run().or_failure(|| "cannot serve".into()).map(|()| true);
    }
    let (address, place) = match &args.host {
        Some(host) => (resolve(host)?, format!("to {host}")),
        None => {
            let own =
                serve::Server::bind(([127, 0, 0, 1], 0).into()).or_failure(|| "cannot listen".into())?;
            let address = own.address;
            // It ends with this process.
            std::thread::spawn(move || own.run());
            (address, "loopback, both ends here".into())
        }
    };
    let mut report = Report::begin("wire", None);
    let tls = tls::Client::new();
    for &connections in &args.connections {
        let bytes = args.bytes - args.bytes % u64::from(connections);
        let size = show_bytes(bytes as f64);
        let title = format!("{size} over {}, {place}", several(connections.into(), "connection"));
        let mut turns = Turns::new(title, Clock::Wall, bytes, Duration::ZERO);
        for kind in Kind::ALL {
            let tls = &tls;
            turns.add_watched(kind.name(), move |watch| {
                send(address, kind, connections, bytes, args.write_bytes, tls, watch)
            });
        }
        turns.run(args.turns.rounds, &mut report);
        args.turns.output.write(&report)?;
    }
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(report.problems.is_empty())
}

fn resolve(host: &str) -> Outcome<SocketAddr> {
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") };
    let found = with_port.to_socket_addrs().or_failure(|| format!("cannot find {host}"))?.next();
    found.map_or_else(|| failure(format!("{host} has no address")), Ok)
}

/// Sends over all connections at once; timed from when all are established until the other end has everything.
fn send(
    address: SocketAddr,
    kind: Kind,
    connections: u32,
    bytes: u64,
    write_bytes: u64,
    tls: &tls::Client,
    watch: &mut Watch,
) -> Outcome<()> {
    let share = bytes / u64::from(connections);
    let mut streams = Vec::new();
    for _ in 0..connections {
        let cannot = || format!("cannot connect with {address}");
        let mut stream = TcpStream::connect(address).or_failure(cannot)?;
        stream.set_nodelay(true).or_failure(cannot)?;
        let mut header = [0; 9];
        header[0] = kind.code();
        header[1..].copy_from_slice(&share.to_le_bytes());
        stream.write_all(&header).or_failure(cannot)?;
        let session = tls.connect(kind, &mut stream).or_failure(cannot)?;
        streams.push((stream, session));
    }
    let mut data = vec![0; usize::try_from(write_bytes.min(share)).unwrap_or(1 << 20)];
    crate::data::fill_with_noise(&mut data);
    let (data, barrier) = (&data[..], Barrier::new(connections as usize + 1));
    std::thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = streams
            .into_iter()
            .map(|(mut stream, session)| {
                scope.spawn(move || -> std::io::Result<()> {
                    barrier.wait();
                    match session {
                        None => write_all(&mut stream, data, share)?,
                        Some(mut session) => {
                            let mut sealed = rustls::Stream::new(&mut session, &mut stream);
                            write_all(&mut sealed, data, share)?;
                            sealed.flush()?;
                        }
                    }
                    // The other end says, without TLS, that it has everything.
                    stream.read_exact(&mut [0])
                })
            })
            .collect();
        barrier.wait();
        let results = watch.time(|| threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>());
        for result in results {
            match result {
                Ok(sent) => sent.or_failure(|| "the connection broke".into())?,
                Err(_) => return failure("a thread died"),
            }
        }
        Ok(())
    })
}

fn write_all(to: &mut impl Write, data: &[u8], bytes: u64) -> std::io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        to.write_all(&data[..now])?;
        left -= now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OutputArgs;

    #[test]
    fn every_kind_gets_through_on_the_loopback() {
        let args = WireArgs {
            host: None,
            serve: None,
            bytes: 1_000_003,
            connections: vec![1, 2],
            write_bytes: 10_000,
            turns: TurnsArgs { rounds: 1, output: OutputArgs::default() },
        };
        assert!(run(&args).unwrap());
    }
}
