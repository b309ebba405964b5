//! What the wire gives: TCP with some connections, plain and with TLS 1.3, to this host or another; with QUIC, to this host.

mod quic;
mod serve;
mod tls;

use crate::data::{self, Shape, Spec};
use crate::failure::{Failure, OrFailure as _, Outcome, failure};
use crate::machine::version_of;
use crate::place::{Place, remove};
use crate::results::{Clock, Report};
use crate::tools::{Hosts, Job, SealiftOptions, Tool as _, sealift};
use crate::tree::{Compared, Tree};
use crate::turns::{Turns, TurnsArgs, Watch};
use crate::units::{parse_bytes, several, show_bytes};
use clap::Args;
use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;

/// Where a server listens unless it is told otherwise.
const PORT: u16 = 3949;
/// How long one transfer may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// The command line of `wire`.
#[derive(Clone, Debug, Args)]
pub struct WireArgs {
    /// A host where `sealift-bench wire --serve` runs [default: a server in this process, on the loopback interface]
    #[arg(value_name = "HOST:PORT", conflicts_with = "serve")]
    pub host: Option<String>,
    /// Serve others until it is stopped. What they send is thrown away, and there is no secret: anybody may send
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, default_missing_value = "[::]:3949")]
    pub serve: Option<SocketAddr>,
    /// Instead of TCP, on the loopback interface: quinn alone, one connection with as many streams, nothing hashed nor written;
    /// and whole transfers by Sealift over QUIC with as many data connections, hashed, verified and written
    #[arg(long, conflicts_with_all = ["host", "serve"])]
    pub quic: bool,
    /// With --quic: the sealift program [default: the one beside this program, else the one on PATH]
    #[arg(long, value_name = "PATH", requires = "quic")]
    pub sealift: Option<PathBuf>,
    /// With --quic: where the data set and copies are [default: $TMPDIR/sealift-bench]
    #[arg(long, value_name = "DIR", requires = "quic")]
    pub dir: Option<PathBuf>,
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
    if args.quic {
        return over_quic(args);
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

/// quinn alone, and Sealift over QUIC beside it.
fn over_quic(args: &WireArgs) -> Outcome<bool> {
    let place = Place::open(args.dir.as_deref())?;
    let program = sealift::find(args.sealift.as_deref()).map_err(Failure)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let server = quic::Server::start()?;
    let mut noise = vec![0; usize::try_from(args.write_bytes).unwrap_or(1 << 20)];
    crate::data::fill_with_noise(&mut noise);
    let mut report = Report::begin("wire", Some(place.dir()));
    report
        .machine
        .tools
        .extend(version_of(&program, &["--version"]).map(|version| ("sealift".into(), version)));
    for &connections in &args.connections {
        let bytes = args.bytes - args.bytes % u64::from(connections);
        let spec = Spec { shape: Shape::Large(bytes), seed: 1, compressible: false };
        eprintln!("Data set {spec}: making or checking it ...");
        let data = data::prepare(spec, &place.data())?;
        place.check_room(bytes, "choose another --dir")?;
        let options =
            SealiftOptions { connections: Some(connections), transport: Some("quic"), ..Default::default() };
        let tool = sealift::Sealift::new(program.clone(), options);
        let size = show_bytes(bytes as f64);
        let title = format!("{size} over QUIC, {}, loopback", several(connections.into(), "stream"));
        let mut turns = Turns::new(title, Clock::Wall, bytes, Duration::ZERO);
        let (noise, address) = (&noise[..], server.address);
        turns.add_watched("quinn", move |watch| quic::send(address, connections, bytes, noise, watch));
        let (place, data, tool) = (&place, &data, &tool);
        // Whole: from the start of the sender to the end of both.
        turns.add_watched("sealift", move |watch| {
            let run = place.new_run("sealift")?;
            place.settle()?;
            let scratch = run.join("scratch");
            std::fs::create_dir_all(&scratch)
                .or_failure(|| format!("cannot create {}", scratch.display()))?;
            let ran = watch.time(|| {
                tool.run(&Job {
                    source: &data.path,
                    dest: &run.join("copy"),
                    scratch: &scratch,
                    durable: false,
                    repeated: false,
                    limit: LIMIT,
                    hosts: &Hosts::default(),
                })
            })?;
            let copy = Tree::read(&ran.copy)?;
            if let Some(difference) = data.tree.difference(&copy, Compared { modes: true }) {
                return failure(format!("the copy is wrong: {difference}"));
            }
            remove(&run)
        });
        turns.run(args.turns.rounds, &mut report);
        args.turns.output.write(&report)?;
    }
    place.clear_runs()?;
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
            quic: false,
            sealift: None,
            dir: None,
            bytes: 1_000_003,
            connections: vec![1, 2],
            write_bytes: 10_000,
            turns: TurnsArgs { rounds: 1, output: OutputArgs::default() },
        };
        assert!(run(&args).unwrap());
    }

    #[test]
    fn quinn_alone_gets_through() {
        let mut report = Report::begin("wire", None);
        let server = quic::Server::start().unwrap();
        let (address, noise) = (server.address, [7; 10_000]);
        let mut turns = Turns::new("quinn".into(), Clock::Wall, 1_000_002, Duration::ZERO);
        turns.add_watched("quinn", move |watch| quic::send(address, 3, 1_000_002, &noise, watch));
        turns.run(1, &mut report);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}
