//! Where a job's members are looked for: what the command line says of it, and the one place where it is started.
//!
//! A sender is announced for as long as it serves. A receiver looks for it once the ticket's addresses don't answer, and
//! dials what is found beside them: each address once for each time that it is given. What answers there has to prove the
//! job's key like any other.

use crate::error::RunError;
use crate::managed::{Pin, with_port};
use crate::report::{Event, Reporter};
use clap::Args;
use sealift_net::{Discovery, DiscoverySettings, LanSettings, Member, News, TRACKER_PORT, TrackerSettings};
use sealift_proto::discovery::{DiscoveryKey, Offers};
use sealift_proto::keys::RoSecret;
use sealift_proto::limits::TICKET_ADDRESSES_MAX;
use sealift_proto::ticket::Address;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// Says what `--tracker` does, where that is not given.
const TRACKER_VARIABLE: &str = "SEALIFT_TRACKER";
/// Says how the local network is used, where `--no-lan` is not given: `off`, `PORT`, or `IP:PORT` to send to.
const LAN_VARIABLE: &str = "SEALIFT_LAN";

/// The options of commands that look for members, or are found.
#[derive(Clone, Debug, Default, Args)]
pub struct DiscoveryArgs {
    /// A tracker by which sender and receiver find each other, and the fingerprint that it said at its start (of a control
    /// daemon: its authority's) [default: SEALIFT_TRACKER]
    #[arg(long, value_name = "HOST[:PORT]#PIN", value_parser = parse_tracker)]
    tracker: Option<TrackerSettings>,
    /// Neither be found on the local network nor look for others there (UDP 3838)
    #[arg(long)]
    no_lan: bool,
}

impl DiscoveryArgs {
    /// What they say, and the environment.
    ///
    /// # Errors
    /// If a variable says what makes no sense.
    pub fn options(self) -> Result<DiscoveryOptions, RunError> {
        let usage = |name: &str, what: String| RunError::Usage(format!("{name}: {what}"));
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let tracker = match (self.tracker, variable(TRACKER_VARIABLE)) {
            (Some(tracker), _) => Some(tracker),
            (None, Some(text)) => Some(parse_tracker(&text).map_err(|what| usage(TRACKER_VARIABLE, what))?),
            (None, None) => None,
        };
        let lan = match (self.no_lan, variable(LAN_VARIABLE)) {
            (true, _) => Lan::Off,
            (false, Some(text)) => parse_lan(&text).map_err(|what| usage(LAN_VARIABLE, what.into()))?,
            (false, None) => Lan::Usual,
        };
        Ok(DiscoveryOptions { tracker, lan })
    }
}

/// By what members are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryOptions {
    /// A tracker.
    pub tracker: Option<TrackerSettings>,
    /// The local network.
    pub lan: Lan,
}

/// How the local network is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lan {
    /// Not at all.
    #[default]
    Off,
    /// Everywhere, unless this side listens on a loopback address alone.
    Usual,
    /// In this way.
    So(LanSettings),
}

impl DiscoveryOptions {
    fn settings(&self, bound: Option<SocketAddr>) -> DiscoverySettings {
        let lan = match &self.lan {
            Lan::Usual if !bound.is_some_and(|bound| bound.ip().is_loopback()) => {
                Some(LanSettings::default())
            }
            Lan::So(settings) => Some(settings.clone()),
            Lan::Off | Lan::Usual => None,
        };
        DiscoverySettings { tracker: self.tracker.clone(), lan }
    }
}

fn parse_tracker(text: &str) -> Result<TrackerSettings, String> {
    let (host, pin) = text.split_once('#').ok_or("a tracker is HOST#PIN or HOST:PORT#PIN")?;
    let address = with_port(host, TRACKER_PORT).map_err(|error| error.to_string())?;
    let address = address.parse::<Address>().map_err(|error| error.to_string())?;
    let pin = pin.parse::<Pin>().map_err(|error| error.to_string())?;
    Ok(TrackerSettings { address, pin: pin.bytes() })
}

fn parse_lan(text: &str) -> Result<Lan, &'static str> {
    if text == "off" {
        return Ok(Lan::Off);
    }
    if let Ok(port) = text.parse() {
        return Ok(Lan::So(LanSettings { port, targets: None }));
    }
    match text.parse() {
        Ok(SocketAddr::V4(to)) => Ok(Lan::So(LanSettings { port: to.port(), targets: Some(vec![*to.ip()]) })),
        _ => Err("it is off, a port, or the IPV4:PORT to send to"),
    }
}

/// The addresses on which others may find this host, if it listens on this one.
#[must_use]
pub fn own_addresses(bound: SocketAddr) -> Vec<IpAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound.ip()];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
    let mut ips: Vec<_> = interfaces
        .map(|interface| interface.ip())
        .filter(|ip| !ip.is_loopback() && !is_link_local(*ip) && (bound.is_ipv6() || ip.is_ipv4()))
        .collect();
    ips.sort();
    ips.dedup();
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    ips
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Begins; `listens` is where this side can be dialled, and by what. What is wrong is for the caller to tell, from
/// [`Discovery::next`].
///
/// # Errors
/// If there is no randomness for a name.
pub fn start(
    options: &DiscoveryOptions,
    ro: &RoSecret,
    listens: Option<(SocketAddr, Offers)>,
) -> Result<Discovery, RunError> {
    let addresses = move || listens.map_or_else(Vec::new, |(bound, _)| own_addresses(bound));
    let member = Member::new(listens.map(|(bound, offers)| (bound.port(), offers)), Arc::new(addresses));
    let member = member.map_err(|error| RunError::Failed(format!("no randomness for a name: {error}")))?;
    let settings = options.settings(listens.map(|(bound, _)| bound));
    Ok(Discovery::start(settings, DiscoveryKey::of(ro), member))
}

/// Says that this side is there until it is dropped; what others say is not asked for.
#[derive(Debug)]
pub struct Announced(JoinSet<()>);

/// Announces a sender.
///
/// # Errors
/// As [`start`].
pub fn announce(
    options: &DiscoveryOptions,
    ro: &RoSecret,
    bound: SocketAddr,
    offers: Offers,
    reporter: &Arc<Reporter>,
) -> Result<Announced, RunError> {
    let mut discovery = start(options, ro, Some((bound, offers)))?;
    let reporter = Arc::clone(reporter);
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            if let News::Trouble(message) = discovery.next().await {
                reporter.tell(&Event::Warning { message });
            }
        }
    });
    Ok(Announced(task))
}

impl Announced {
    /// Says goodbye.
    pub async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// Looks for a sender that the ticket's addresses don't lead to.
pub struct Finder {
    options: DiscoveryOptions,
    ro: RoSecret,
    reporter: Arc<Reporter>,
    /// Not begun before it is needed.
    search: Option<JoinSet<()>>,
    found: Arc<Mutex<Vec<SocketAddr>>>,
    /// Where the sender was, when it was found.
    proved: Option<SocketAddr>,
    /// Whether the last dial went to what was found, too.
    had_found: bool,
}

impl Finder {
    /// One that has not begun.
    #[must_use]
    pub fn new(options: DiscoveryOptions, ro: RoSecret, reporter: Arc<Reporter>) -> Self {
        let found = Arc::default();
        Self { options, ro, reporter, search: None, found, proved: None, had_found: false }
    }

    /// What to dial: the ticket's addresses; and when they did not answer before, or there are none, what is found.
    ///
    /// # Errors
    /// As [`start`].
    pub fn addresses(&mut self, ticket: &[Address], again: bool) -> Result<Vec<Address>, RunError> {
        let mut addresses = ticket.to_vec();
        if !again && !ticket.is_empty() {
            return Ok(addresses);
        }
        self.look()?;
        let found = std::mem::take(&mut *self.found());
        self.had_found = !found.is_empty();
        let more = self.proved.into_iter().chain(found).map(Address::from);
        addresses.extend(more.filter(|address| !ticket.contains(address)));
        Ok(addresses)
    }

    /// Looks for the sender from now on. Whether something was found that was not dialled yet.
    ///
    /// # Errors
    /// As [`start`].
    pub fn look(&mut self) -> Result<bool, RunError> {
        if self.search.is_none() {
            self.search = Some(self.begin()?);
        }
        Ok(!self.found().is_empty())
    }

    /// Whether there is anybody to ask.
    #[must_use]
    pub fn can_look(&self) -> bool {
        self.options.tracker.is_some() || self.options.lan != Lan::Off
    }

    /// A session was opened there: it is dialled again if the session is lost.
    pub fn proved(&mut self, address: SocketAddr) {
        self.proved = Some(address);
    }

    /// Whether the last dial went to addresses that were found. That one of them is somebody else's says nothing.
    #[must_use]
    pub const fn had_found(&self) -> bool {
        self.had_found
    }

    fn found(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<JoinSet<()>, RunError> {
        let mut discovery = start(&self.options, &self.ro, None)?;
        let (found, reporter) = (Arc::clone(&self.found), Arc::clone(&self.reporter));
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                match discovery.next().await {
                    News::Found(candidate) if candidate.offers != Offers::NOTHING => {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        // With too many, the oldest gives way.
                        if found.len() >= TICKET_ADDRESSES_MAX {
                            found.remove(0);
                        }
                        found.push(candidate.address);
                    }
                    News::Found(_) => {}
                    News::Trouble(message) => reporter.tell(&Event::Warning { message }),
                }
            }
        });
        Ok(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;

    const PIN: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_tracker_is_a_host_a_port_that_may_be_left_out_and_a_pin() {
        for (text, address) in [
            (format!("tracker.example#{PIN}"), "tracker.example:3000"),
            (format!("tracker.example:1#sha256:{PIN}"), "tracker.example:1"),
            (format!("::1#{PIN}"), "[::1]:3000"),
        ] {
            let tracker = parse_tracker(&text).unwrap();
            assert_eq!((tracker.address.to_string().as_str(), tracker.pin[0]), (address, 0xe3));
        }
        for text in ["host", "host#", "#", &format!("a b#{PIN}"), &format!("host#{}", &PIN[1..])] {
            assert!(parse_tracker(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_local_network_is_used_unless_that_makes_no_sense() {
        let usual = DiscoveryOptions { tracker: None, lan: Lan::Usual };
        let settings = |options: &DiscoveryOptions, bound: &str| options.settings(bound.parse().ok()).lan;
        assert_eq!(settings(&usual, "[::]:1"), Some(LanSettings::default()));
        assert_eq!(settings(&usual, "nowhere: it only looks"), Some(LanSettings::default()));
        assert_eq!(settings(&usual, "127.0.0.1:1"), None);
        let so = LanSettings { port: 5, targets: Some(vec![Ipv4Addr::new(127, 255, 255, 255)]) };
        assert_eq!(parse_lan("127.255.255.255:5"), Ok(Lan::So(so.clone())));
        let said = DiscoveryOptions { tracker: None, lan: Lan::So(so.clone()) };
        assert_eq!(settings(&said, "127.0.0.1:1"), Some(so));
        assert_eq!(parse_lan("5"), Ok(Lan::So(LanSettings { port: 5, targets: None })));
        assert_eq!(parse_lan("off"), Ok(Lan::Off));
        assert_eq!(LanSettings::default().port, 3838);
        for text in ["", "on", "[::1]:5", "99999"] {
            assert!(parse_lan(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_found_is_dialled_once_and_beside_the_ticket() {
        let reporter = Arc::new(Reporter::new(Style::Json));
        let ro = RoSecret::from_bytes(&[7; 32]);
        let mut finder = Finder::new(DiscoveryOptions::default(), ro, reporter);
        let ticket: Vec<Address> = vec!["10.0.0.1:1".parse().unwrap()];
        let found: SocketAddr = "10.0.0.2:2".parse().unwrap();
        assert_eq!(finder.addresses(&ticket, false).unwrap(), ticket);
        assert!(finder.search.is_none(), "it was not needed yet");
        assert!(!finder.look().unwrap());
        finder.found().push(found);
        assert!(finder.look().unwrap());
        assert_eq!(finder.addresses(&ticket, true).unwrap(), [ticket[0].clone(), found.into()]);
        assert!(finder.had_found() && finder.search.is_some());
        assert_eq!(finder.addresses(&ticket, true).unwrap(), ticket);
        assert!(!finder.had_found());
        finder.proved(found);
        assert_eq!(finder.addresses(&[], false).unwrap(), [found.into()]);
    }
}
