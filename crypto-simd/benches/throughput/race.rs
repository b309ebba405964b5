//! Contenders that take turns, and the medians of what they reach.

use rustix::time::{ClockId, clock_gettime};
use std::process::Command;

/// How often every contender has its turn.
const ROUNDS: usize = 9;

/// The least time of a turn, in seconds.
const TURN_S: f64 = 0.02;

/// Which time counts.
#[derive(Clone, Copy)]
pub enum Clock {
    /// What this thread spent on a core: for one core of a machine shared with others.
    Cpu,
    /// What passed.
    Wall,
}

impl Clock {
    fn seconds(self) -> f64 {
        let id = match self {
            Self::Cpu => ClockId::ThreadCPUTime,
            Self::Wall => ClockId::Monotonic,
        };
        let now = clock_gettime(id);
        now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
    }
}

enum Contender<'a> {
    Here(Box<dyn FnMut() + 'a>),
    /// `openssl speed` on blocks of so many bytes.
    OpenSsl(usize),
}

/// Several ways of doing the same, the first of which is the peer of the others.
pub struct Race<'a> {
    title: String,
    bytes: usize,
    contenders: Vec<(String, Contender<'a>)>,
}

impl<'a> Race<'a> {
    /// A race over so many bytes a turn.
    pub fn new(title: String, bytes: usize) -> Self {
        Self { title, bytes, contenders: Vec::new() }
    }

    /// Enters a contender.
    pub fn add(&mut self, name: &str, work: impl FnMut() + 'a) {
        self.contenders.push((name.into(), Contender::Here(Box::new(work))));
    }

    /// Enters the `openssl` command, if there is one.
    pub fn add_openssl(&mut self, block_bytes: usize) {
        if Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
            self.contenders.push(("openssl".into(), Contender::OpenSsl(block_bytes)));
        }
    }

    /// Runs it and prints a line for each contender.
    pub fn run(mut self, clock: Clock) {
        println!("\n{}", self.title);
        let bytes = self.bytes as f64;
        let mut speeds = vec![Vec::new(); self.contenders.len()];
        // The first round warms up.
        for round in 0..=ROUNDS {
            for (i, (_, contender)) in self.contenders.iter_mut().enumerate() {
                let speed = match contender {
                    Contender::Here(work) => turn(work, bytes, clock),
                    Contender::OpenSsl(block_bytes) => openssl(*block_bytes),
                };
                if round > 0 {
                    speeds[i].push(speed);
                }
            }
        }
        for (i, (name, _)) in self.contenders.iter().enumerate() {
            let ratios = speeds[i].iter().zip(&speeds[0]).map(|(speed, peer)| speed / peer).collect();
            println!("  {name:<10} {:7.2} GB/s  × {:.2}", median(speeds[i].clone()), median(ratios));
        }
    }
}

/// Bytes per nanosecond of as many repetitions as make a turn.
fn turn(work: &mut dyn FnMut(), bytes: f64, clock: Clock) -> f64 {
    let start = clock.seconds();
    let mut done = 0.0;
    loop {
        work();
        done += bytes;
        let spent = clock.seconds() - start;
        if spent >= TURN_S {
            return done / spent * 1e-9;
        }
    }
}

/// What `openssl speed` reports for a second of SHA-256: thousands of bytes per second of CPU time.
fn openssl(block_bytes: usize) -> f64 {
    let output = Command::new("openssl")
        .args(["speed", "-seconds", "1", "-evp", "sha256", "-bytes", &block_bytes.to_string()])
        .output()
        .expect("it told its version");
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = text.lines().rev().find_map(|line| line.split_whitespace().last()?.strip_suffix('k'));
    figure.and_then(|figure| figure.parse::<f64>().ok()).map_or(f64::NAN, |thousands| thousands * 1e-6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes without pattern, all of them touched.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}
