//! The command line: its words, where a ticket may come from, and the exit codes.

mod agent;
mod operator;
mod restore;

use crate::discovery::DiscoveryArgs;
use crate::error::{Finish, RunError};
use crate::orders;
use crate::pace::Pace;
use crate::preserve::{Aspect, Preserve};
use crate::receive::{self, MaxDelete, OnConflict, Owners, ReceiveOptions, Verify};
use crate::report::{Event, Reporter, Style};
use crate::seal::KeyFile;
use crate::send::{self, DATA_PORT, SendOptions};
use crate::state::{JobName, StateDir};
use crate::swarm::SwarmOptions;
use crate::verify::{self, RebuildOptions, VerifyOptions};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sealift_net::{Cipher, Transport};
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::limits::{DATA_CONNECTIONS_MAX, TICKET_CHARS_MAX};
use sealift_proto::member::Label;
use sealift_proto::rate::{BothWays, Timetable};
use sealift_proto::ticket::{Address, Ticket};
use sealift_store::{AttributeKinds, Durability, MapperOptions, OwnerMap, XattrFilter};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 partly done (what is missing was named), \
    4 not authorized, 5 unreachable.\n\
    SEALIFT_IO=uring|threads chooses how disks are read and written; by default io_uring where it is allowed.";

/// Replicates directories between hosts: sealed, signed and verified block by block.
#[derive(Debug, Parser)]
#[command(name = "sealift", version, after_help = EXIT_CODES)]
struct Cli {
    /// Where this host keeps what must survive a run [default: SEALIFT_STATE_DIR, or ~/.local/state/sealift]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Offers files and directories, and prints the ticket with which they can be received.
    ///
    /// A single directory is mirrored: its contents land in the receiver's DEST. A file, or each of several paths,
    /// lands as DEST/name.
    #[command(
        after_help = "Example:\n  sealift send --once /data/set\n\n  prints a ticket. On the other host:\n  \
        sealift receive TICKET /data/copy"
    )]
    Send(SendArgs),
    /// Fetches what a ticket offers into DEST, and verifies every block.
    ///
    /// What DEST has already is not fetched again, and an interrupted run goes on where it was. Nothing in DEST is
    /// deleted unless --delete is given.
    #[command(after_help = "Examples:\n  sealift receive sealift1... /data/copy\n  \
        sealift receive @ticket.txt /data/copy\n  \
        SEALIFT_TICKET=sealift1... sealift receive /data/copy\n\n\
        The last two keep the ticket, which is a secret, out of the list of processes.")]
    Receive(ReceiveArgs),
    /// Hashes all of a replica, compares it with the signed manifest in it, and names every damaged block.
    ///
    /// With --repair, what is damaged or missing is fetched from a source, block by block, and nothing else.
    #[command(after_help = "Examples:\n  sealift verify /data/copy\n  \
        sealift verify /data/copy --repair --from @ticket.txt\n\n\
        Exit codes: 0 all right, 3 damage found (after a repair: left), 1 it cannot be verified.")]
    Verify(VerifyArgs),
    /// Makes the tree of a sealed job anew from what any receiver of it has, with the private key.
    #[command(after_help = "Examples:\n  sealift restore /data/keeper /data/tree --key private.pem\n  \
        sealift restore /data/keeper /data/tree --key private.pem --passphrase-file passphrase.txt\n\n\
        Exit codes: 0 all restored, 3 some entries could not be, 1 nothing could.")]
    Restore(restore::RestoreArgs),
    /// Wraps the data key of a sealed job to other keys, for replicas whose source is not there to do it.
    #[command(
        after_help = "Example:\n  sealift rewrap /data/keeper --key old.pem --seal-to new.pub.pem --out new.keys\n  \
        sealift restore /data/keeper /data/tree --key new.pem --keys new.keys"
    )]
    Rewrap(restore::RewrapArgs),
    /// What this host remembers of a replica.
    #[command(subcommand)]
    Index(IndexCommand),
    /// This host as a managed agent: a control daemon says what is replicated. And the agents of a daemon.
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    #[command(flatten)]
    Operator(operator::OperatorCommand),
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Makes the index of a replica anew, from its files and the signed manifest in it. The old one is kept beside it.
    Rebuild(RebuildArgs),
}

#[derive(Debug, Args)]
struct SendArgs {
    /// Files and directories to offer
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where to listen: ADDR, ADDR:PORT or :PORT [default: every address, port 3939]
    #[arg(long, value_name = "ADDR", value_parser = parse_bind)]
    bind: Option<SocketAddr>,
    /// An address to put into the ticket before this host's own (behind NAT, or a host name); may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<Address>,
    /// End once the first receiver has everything
    #[arg(long)]
    once: bool,
    /// Write the ticket to FILE, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// The hash of the blocks
    #[arg(long, value_enum, default_value_t = Hash::Sha256)]
    hash: Hash,
    /// The cipher of the sessions
    #[arg(long, default_value_t = Cipher::Aes256Gcm, value_name = "aes-256-gcm|aes-128-gcm")]
    cipher: Cipher,
    /// What sessions may go over: TCP, QUIC over the UDP port of the same number, or either
    #[arg(long, default_value_t = Transport::Auto, value_name = "tcp|quic|auto")]
    transport: Transport,
    /// Data connections that one receiver may open
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parse_connections)]
    connections: usize,
    #[command(flatten)]
    discovery: DiscoveryArgs,
    #[command(flatten)]
    pace: PaceArgs,
    /// Where this host stands in the network, from the widest part to the narrowest (eu/dc1/rack7): receivers fetch from
    /// those who are near
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    label: Label,
    /// Keep the keys under NAME, so that the ticket stays the same over restarts; one sender at a time
    #[arg(long, value_name = "NAME")]
    job: Option<JobName>,
    /// Hash all files again, also those that are as an earlier run hashed them
    #[arg(long)]
    rehash: bool,
    /// What is carried beside names, content, modes, times and links: a list of owner, xattrs, acls; or all
    #[arg(long, value_name = "LIST", default_value = "default")]
    preserve: Preserve,
    /// Seal names and content so that only the holder of this RSA key's private half can read them (with `sealift restore`);
    /// receivers keep, verify, repair and serve what they cannot read. A public key in PEM; may be repeated
    #[arg(long, value_name = "FILE")]
    seal_to: Vec<KeyFile>,
    /// Tell events as JSON, one object a line, on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReceiveArgs {
    /// The ticket, @FILE to read it from a file, or - for standard input; left out if SEALIFT_TICKET has it
    #[arg(value_name = "TICKET|@FILE|-")]
    ticket_or_dest: OsString,
    /// Where the files go; created if missing
    #[arg(value_name = "DEST")]
    dest: Option<PathBuf>,
    /// Whether everything is on the disk before it is called done
    #[arg(long, value_enum, default_value_t = Switch::Yes)]
    fsync: Switch,
    /// What is verified: the stream of blocks, or also each file read back from the disk
    #[arg(long, value_enum, default_value_t = Verify::Stream)]
    verify: Verify,
    /// What the session goes over: TCP, QUIC, or whichever works and serves better
    #[arg(long, default_value_t = Transport::Auto, value_name = "tcp|quic|auto")]
    transport: Transport,
    /// Data connections [default: twice the cores, 4 to 16]
    #[arg(long, value_name = "N", default_value_t = default_connections(), value_parser = parse_connections, hide_default_value = true)]
    connections: usize,
    /// QUIC connections that the data connections share, where they go over QUIC: each keeps a core busy at either end when it
    /// is fast [default: one for four cores, 1 to 4]
    #[arg(long, value_name = "N", default_value_t = default_quic_connections(), value_parser = parse_quic_connections, hide_default_value = true)]
    quic_connections: NonZeroUsize,
    #[command(flatten)]
    discovery: DiscoveryArgs,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    swarm: SwarmArgs,
    /// Keep set-user-id, set-group-id and sticky bits of files and directories
    #[arg(long)]
    keep_special_modes: bool,
    /// Remove what is gone at the source, of what this job has put here and nobody edited since
    #[arg(long)]
    delete: bool,
    /// Remove no more than N entries (or a percentage: N%) without asking; nothing is removed otherwise
    /// [default: 10 % or 1000, whichever is less, and 10 in any case]
    #[arg(long, value_name = "N|N%", requires = "delete")]
    max_delete: Option<MaxDelete>,
    /// Stop once more than N files that were put here before would be replaced by others
    #[arg(long, value_name = "N")]
    max_rewrite: Option<u64>,
    /// What becomes of a file that was edited here, when the source has another version
    #[arg(long, value_enum, default_value_t = OnConflict::Rename)]
    on_conflict: OnConflict,
    /// What is kept of the source's metadata: a list of mode, times, links, hardlinks, sparse, owner, xattrs, acls; or
    /// default (the first five), all, none
    #[arg(long, value_name = "LIST", default_value = "default")]
    preserve: Preserve,
    /// Which account stands for one of the source, with --preserve=owner or acls: user:FROM=TO or group:FROM=TO; may be
    /// repeated. Accounts of the same name stand for each other by themselves
    #[arg(long, value_name = "KIND:FROM=TO")]
    map_owner: Vec<String>,
    /// What belongs to root at the source may belong to root here
    #[arg(long)]
    allow_root: bool,
    /// Extended attributes that may be set, with --preserve=xattrs: names, or beginnings that end in .*; may be repeated
    /// [default: user.*]
    #[arg(long, value_name = "NAME")]
    xattr: Vec<String>,
    /// Write large files through the page cache, too, where they would be written past it (on ext4, XFS and F2FS): good if
    /// they are read right after
    #[arg(long)]
    page_cache: bool,
    /// How long a full disk is waited for, in seconds [default: as long as it takes]
    #[arg(long, value_name = "SECONDS")]
    wait_for_space: Option<u32>,
    /// Take a ticket of a sealed job alone: nothing is kept here that could be read here
    #[arg(long)]
    must_seal: bool,
    /// DEST may be another directory than was replicated to under this name before
    #[arg(long)]
    new_replica: bool,
    /// How long an unreachable sender is tried again, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    retry_for: u32,
    /// Tell events as JSON, one object a line, on standard output
    #[arg(long)]
    json: bool,
}

/// How fast.
#[derive(Debug, Args)]
struct PaceArgs {
    /// How fast blocks go over the wire, all connections together: bytes a second, with K, M, G or T for powers of 1024;
    /// UP:DOWN for each direction by itself; or a timetable by this host's time of day, like '08:00,512K 18:00,30M 23:00,off'
    /// or 'Mon-08:00,1M Sat-00:00,off' [default: as fast as it can be]
    #[arg(long, value_name = "RATE|TIMETABLE", conflicts_with = "orders")]
    bwlimit: Option<Timetable>,
    /// Take orders, as an agent gives them, from standard input, and end with it
    #[arg(long, hide = true)]
    orders: bool,
}

/// Receivers that serve each other.
#[derive(Debug, Args)]
struct SwarmArgs {
    /// Fetch from the sender alone, and serve nobody
    #[arg(long)]
    no_share: bool,
    /// Where other receivers are served [default: all addresses, port 3939, or any other port if that is taken]
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "no_share")]
    bind: Option<SocketAddr>,
    /// Where this host stands in the network, from the widest part to the narrowest (eu/dc1/rack7): receivers fetch from
    /// those who are near
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    label: Label,
    /// When all is here, go on serving others until none of them has fetched anything for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with = "no_share")]
    stay: u32,
}

impl SwarmArgs {
    fn options(self) -> SwarmOptions {
        SwarmOptions {
            share: !self.no_share,
            bind: self.bind,
            label: self.label,
            stay: Duration::from_secs(self.stay.into()),
        }
    }

    /// Of one that serves nobody.
    fn none() -> Self {
        Self { no_share: true, bind: None, label: Label::default(), stay: 0 }
    }
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The replica
    dest: PathBuf,
    /// A ticket of the job that the replica must be of, @FILE or -; by default this host must have received it
    #[arg(long, value_name = "TICKET|@FILE|-")]
    ticket: Option<OsString>,
    /// Fetch what is damaged or missing
    #[arg(long, requires = "from")]
    repair: bool,
    /// Where from: a ticket, @FILE or -
    #[arg(long, requires = "repair", value_name = "TICKET|@FILE|-")]
    from: Option<OsString>,
    /// Name what is in DEST and not in the manifest, too
    #[arg(long)]
    extra: bool,
    /// What becomes of a file that was edited here
    #[arg(long, value_enum, default_value_t = OnConflict::Rename, requires = "repair")]
    on_conflict: OnConflict,
    /// What is kept of the source's metadata in what is repaired, as with receive
    #[arg(long, value_name = "LIST", default_value = "default", requires = "repair")]
    preserve: Preserve,
    /// What the session goes over, as with receive
    #[arg(long, default_value_t = Transport::Auto, value_name = "tcp|quic|auto", requires = "repair")]
    transport: Transport,
    /// How fast blocks are fetched, as with receive
    #[arg(long, value_name = "RATE|TIMETABLE", requires = "repair")]
    bwlimit: Option<Timetable>,
    #[command(flatten)]
    discovery: DiscoveryArgs,
    /// Keep set-user-id, set-group-id and sticky bits of what is repaired
    #[arg(long, requires = "repair")]
    keep_special_modes: bool,
    /// As with receive
    #[arg(long, value_name = "KIND:FROM=TO", requires = "repair")]
    map_owner: Vec<String>,
    /// As with receive
    #[arg(long, requires = "repair")]
    allow_root: bool,
    /// As with receive
    #[arg(long, value_name = "NAME", requires = "repair")]
    xattr: Vec<String>,
    /// How long an unreachable sender is tried again, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "repair")]
    retry_for: u32,
    /// Tell events as JSON, one object a line, on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RebuildArgs {
    /// The replica
    dest: PathBuf,
    /// A ticket of the job that the replica must be of, @FILE or -; by default this host must have received it
    #[arg(long, value_name = "TICKET|@FILE|-")]
    ticket: Option<OsString>,
    /// Tell events as JSON, one object a line, on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hash {
    Sha256,
    Blake3,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    Yes,
    No,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    raise_descriptor_limit();
    // clap prints usage errors and exits with 2, help with 0.
    let cli = Cli::parse();
    let json = match &cli.command {
        Command::Send(args) => args.json,
        Command::Receive(args) => args.json,
        Command::Verify(args) => args.json,
        Command::Restore(args) => args.json,
        Command::Index(IndexCommand::Rebuild(args)) => args.json,
        Command::Agent(_) | Command::Operator(_) | Command::Rewrap(_) => false,
    };
    let style = if json { Style::Json } else { Style::People };
    let reporter = Arc::new(Reporter::new(style).with_bar());
    match run(cli.command, cli.state_dir, &reporter) {
        Ok(finish) => finish.into(),
        Err(error) => {
            let code = error.code();
            reporter.tell(&Event::Error { message: error.to_string(), code });
            ExitCode::from(code)
        }
    }
}

/// Takes as many descriptors as this user may have. What is staged at a time fits the usual limit too.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

fn run(command: Command, state_dir: Option<PathBuf>, reporter: &Arc<Reporter>) -> Result<Finish, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::Failed(format!("cannot start: {error}")))?;
    let reporter = Arc::clone(reporter);
    match command {
        Command::Send(args) => runtime.block_on(send::send(args.options(state_dir)?, reporter)),
        Command::Receive(args) => {
            let options = args.options(StateDir::open(state_dir)?)?;
            runtime.block_on(receive::receive(options, reporter))
        }
        Command::Verify(args) => {
            let options = args.options(StateDir::open(state_dir)?)?;
            runtime.block_on(verify::verify(options, reporter))
        }
        Command::Restore(args) => {
            let options = args.options(StateDir::open(state_dir)?)?;
            runtime.block_on(crate::restore::restore(options, reporter))
        }
        Command::Rewrap(args) => crate::restore::rewrap(&args.options(), &reporter),
        Command::Index(IndexCommand::Rebuild(args)) => {
            let state = StateDir::open(state_dir)?;
            let ticket = args.ticket.as_ref().map(decode_ticket).transpose()?;
            let options = RebuildOptions { dest: args.dest, state, ticket };
            runtime.block_on(verify::rebuild(options, reporter))
        }
        Command::Agent(command) => runtime.block_on(agent::run(command, state_dir, &reporter)),
        Command::Operator(command) => runtime.block_on(operator::run(command)),
    }
}

impl SendArgs {
    fn options(self, state_dir: Option<PathBuf>) -> Result<SendOptions, RunError> {
        Ok(SendOptions {
            paths: self.paths,
            bind: self.bind,
            advertise: self.advertise,
            once: self.once,
            ticket_file: self.ticket_file,
            hash: match self.hash {
                Hash::Sha256 => HashAlgorithm::Sha256,
                Hash::Blake3 => HashAlgorithm::Blake3,
            },
            cipher: self.cipher,
            label: self.label,
            limiter: self.pace.pace()?.up,
            transport: self.transport,
            connections: self.connections,
            job: self.job,
            state_dir,
            rehash: self.rehash,
            preserve: self.preserve,
            seal_to: self.seal_to,
            discovery: self.discovery.options()?,
        })
    }
}

impl PaceArgs {
    /// Whoever takes orders from standard input has read everything else from there before.
    fn pace(self) -> Result<Pace, RunError> {
        let timetable = self.bwlimit.unwrap_or_else(|| Timetable::always(BothWays::default()));
        let failed = |error| RunError::Failed(format!("cannot keep to a timetable: {error}"));
        let pace = Pace::by(timetable).map_err(failed)?;
        if self.orders {
            let failed = |error| RunError::Usage(format!("cannot take orders: {error}"));
            orders::follow(pace.clone()).map_err(failed)?;
        }
        Ok(pace)
    }
}

impl ReceiveArgs {
    fn options(self, state: StateDir) -> Result<ReceiveOptions, RunError> {
        let (ticket, dest) = match self.dest {
            Some(dest) => (read_ticket(&self.ticket_or_dest)?, dest),
            None if self.ticket_or_dest.to_str().is_some_and(|text| Ticket::decode(text).is_ok()) => {
                return Err(RunError::Usage("DEST is missing after the ticket".into()));
            }
            None => (ticket_from_environment()?, PathBuf::from(self.ticket_or_dest)),
        };
        let ticket = Ticket::decode(&ticket).map_err(|error| RunError::Usage(error.to_string()))?;
        if self.must_seal && !ticket.is_keepers() {
            let what = "the ticket is not of a sealed job, and --must-seal takes no other: the sender has to --seal-to a key";
            return Err(RunError::Usage(what.into()));
        }
        let owners = owners(&self.preserve, &self.xattr, &self.map_owner, self.allow_root)?;
        Ok(ReceiveOptions {
            ticket,
            dest,
            durability: match self.fsync {
                Switch::Yes => Durability::Synced,
                Switch::No => Durability::Unsynced,
            },
            verify: self.verify,
            pace: self.pace.pace()?,
            transport: self.transport,
            connections: self.connections,
            quic_connections: self.quic_connections,
            swarm: self.swarm.options(),
            keep_special_modes: self.keep_special_modes,
            retry_for: Duration::from_secs(self.retry_for.into()),
            state,
            new_replica: self.new_replica,
            preserve: self.preserve,
            owners,
            on_conflict: self.on_conflict,
            page_cache: self.page_cache,
            delete: self.delete.then(|| self.max_delete.unwrap_or(MaxDelete::Usual)),
            ask: (!self.json && std::io::stdin().is_terminal()).then_some(ask_about_deletions),
            max_rewrite: self.max_rewrite,
            wait_for_space: self.wait_for_space.map(|seconds| Duration::from_secs(seconds.into())),
            repair: None,
            discovery: self.discovery.options()?,
        })
    }
}

/// How owners, extended attributes and access control lists are set.
fn owners(
    preserve: &Preserve,
    xattr: &[String],
    map_owner: &[String],
    allow_root: bool,
) -> Result<Owners, RunError> {
    let usage = |error: &dyn std::fmt::Display| RunError::Usage(error.to_string());
    let kept = |aspect| preserve.has(aspect);
    Owners::new(MapperOptions {
        kinds: AttributeKinds {
            owner: kept(Aspect::Owner),
            xattrs: kept(Aspect::Xattrs),
            acls: kept(Aspect::Acls),
        },
        xattrs: match xattr.is_empty() {
            true => XattrFilter::default(),
            false => XattrFilter::parse(xattr).map_err(|error| usage(&error))?,
        },
        owners: OwnerMap::parse(map_owner).map_err(|error| usage(&error))?,
        allow_root,
        remove_others: false,
    })
}

impl VerifyArgs {
    fn options(self, state: StateDir) -> Result<VerifyOptions, RunError> {
        let stdin = |argument: &Option<OsString>| argument.as_deref() == Some(OsStr::new("-"));
        if stdin(&self.ticket) && stdin(&self.from) {
            return Err(RunError::Usage("only one ticket can be read from standard input".into()));
        }
        let ticket = self.ticket.as_ref().map(decode_ticket).transpose()?;
        let repair = match self.from {
            Some(from) => {
                let receive = ReceiveArgs {
                    ticket_or_dest: from,
                    dest: Some(self.dest.clone()),
                    fsync: Switch::Yes,
                    verify: Verify::Stream,
                    pace: PaceArgs { bwlimit: self.bwlimit, orders: false },
                    transport: self.transport,
                    connections: default_connections(),
                    quic_connections: default_quic_connections(),
                    swarm: SwarmArgs::none(),
                    discovery: self.discovery,
                    keep_special_modes: self.keep_special_modes,
                    delete: false,
                    max_delete: None,
                    max_rewrite: None,
                    on_conflict: self.on_conflict,
                    page_cache: false,
                    preserve: self.preserve,
                    map_owner: self.map_owner,
                    allow_root: self.allow_root,
                    xattr: self.xattr,
                    wait_for_space: None,
                    must_seal: false,
                    new_replica: false,
                    retry_for: self.retry_for,
                    json: self.json,
                };
                Some(receive.options(state.clone())?)
            }
            None => None,
        };
        Ok(VerifyOptions { dest: self.dest, state, ticket, repair, extra: self.extra })
    }
}

fn decode_ticket(argument: &OsString) -> Result<Ticket, RunError> {
    Ticket::decode(&read_ticket(argument)?).map_err(|error| RunError::Usage(error.to_string()))
}

fn ask_about_deletions(gone: u64, all: u64) -> bool {
    use std::io::Write as _;
    let mut error = std::io::stderr().lock();
    let _ = write!(error, "{gone} of {all} entries here are gone at the source. Remove them? [y/N] ");
    let _ = error.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn ticket_from_environment() -> Result<Zeroizing<String>, RunError> {
    std::env::var("SEALIFT_TICKET").map(Zeroizing::new).map_err(|_| {
        let what = "give a ticket and DEST, or DEST alone with the ticket in SEALIFT_TICKET";
        RunError::Usage(what.into())
    })
}

fn read_ticket(argument: &OsString) -> Result<Zeroizing<String>, RunError> {
    let bytes = argument.as_encoded_bytes();
    if bytes == b"-" {
        // One line: what follows may be orders.
        let mut text = Zeroizing::new(String::with_capacity(TICKET_CHARS_MAX + 1));
        let stdin = std::io::stdin().lock().take(TICKET_CHARS_MAX as u64 + 1).read_line(&mut text);
        stdin.map_err(|error| {
            RunError::Usage(format!("cannot read the ticket from standard input: {error}"))
        })?;
        return Ok(text);
    }
    if let Some(file) = bytes.strip_prefix(b"@") {
        use std::os::unix::ffi::OsStrExt as _;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(file));
        let shown = path.display().to_string();
        let file = std::fs::File::open(&path)
            .map_err(|error| RunError::Usage(format!("cannot read the ticket from {shown}: {error}")))?;
        return read_text(file, &shown);
    }
    let text = argument.to_str().ok_or_else(|| RunError::Usage("the ticket is not text".into()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_text(from: impl std::io::Read, shown: &str) -> Result<Zeroizing<String>, RunError> {
    let mut text = Zeroizing::new(String::with_capacity(TICKET_CHARS_MAX + 1));
    from.take(TICKET_CHARS_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| RunError::Usage(format!("cannot read the ticket from {shown}: {error}")))?;
    Ok(text)
}

fn parse_bind(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip, DATA_PORT).into());
    }
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok((std::net::Ipv6Addr::UNSPECIFIED, port).into());
    }
    Err("an address is IP, IP:PORT, [IPV6]:PORT or :PORT".into())
}

/// Each shard of the receiver has work while another connection's blocks are on their way.
fn default_connections() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cores).clamp(4, 16)
}

fn default_quic_connections() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    NonZeroUsize::new((cores / 4).min(4)).unwrap_or(NonZeroUsize::MIN)
}

fn parse_quic_connections(text: &str) -> Result<NonZeroUsize, String> {
    let count = parse_connections(text)?;
    NonZeroUsize::new(count).ok_or_else(|| "at least 1".to_owned())
}

fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=DATA_CONNECTIONS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("a number from 1 to {DATA_CONNECTIONS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bind_takes_what_people_write() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1:3939"),
            ("10.0.0.1:5", "10.0.0.1:5"),
            ("::1", "[::1]:3939"),
            ("[::1]:5", "[::1]:5"),
            (":5", "[::]:5"),
        ] {
            assert_eq!(parse_bind(text).map(|a| a.to_string()), Ok(address.to_owned()));
        }
        assert!(parse_bind("host").is_err());
    }
}
