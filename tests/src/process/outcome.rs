//! What is known of a process that has ended.

use serde_json::Value;

/// How a process ended, and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Every JSON object on standard output.
    pub events: Vec<Value>,
    /// Standard output as it came.
    pub stdout: String,
    /// Standard error as it came.
    pub stderr: String,
    /// The most memory it had resident, as far as it was seen: at each of its events.
    pub peak_resident_bytes: u64,
}

impl Outcome {
    /// The events of this name.
    pub fn named<'o>(&'o self, name: &str) -> impl Iterator<Item = &'o Value> {
        self.events.iter().filter(move |event| event["event"] == name)
    }

    /// What the events of this name say.
    ///
    /// # Panics
    /// If one of them has no message.
    pub fn messages<'o>(&'o self, name: &str) -> impl Iterator<Item = &'o str> {
        self.named(name).map(|event| event["message"].as_str().expect("a message"))
    }

    /// All warnings, a line each.
    ///
    /// # Panics
    /// If one of them has no message.
    #[must_use]
    pub fn warnings(&self) -> String {
        self.messages("warning").collect::<Vec<_>>().join("\n")
    }

    /// The done event, which must be the last line.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn done(&self) -> &Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        let event = self.events.last().unwrap_or_else(|| panic!("nothing was said: {self:#?}"));
        assert_eq!(event["event"], "done", "the last event is not the end: {self:#?}");
        assert_eq!(
            serde_json::from_str::<Value>(last).ok().as_ref(),
            Some(event),
            "there is more after the end"
        );
        event
    }

    /// A number of the done event.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        self.done()[name].as_u64().unwrap_or_else(|| panic!("the end says no {name}: {self:#?}"))
    }

    /// Paths of the entries that had problems, as they were told.
    #[must_use]
    pub fn problems(&self) -> Vec<&str> {
        self.named("problem").filter_map(|event| event["path"].as_str()).collect()
    }

    /// The message of the error event, or the text of standard error.
    #[must_use]
    pub fn message(&self) -> String {
        match self.named("error").last().and_then(|event| event["message"].as_str()) {
            Some(message) => message.to_owned(),
            None => self.stderr.clone(),
        }
    }

    /// Checks the exit code, and that nothing panicked.
    ///
    /// # Panics
    /// If it is another.
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert!(!self.stderr.contains("panicked"), "it panicked: {self:#?}");
        assert_eq!(self.code, Some(code), "the exit code is wrong: {self:#?}");
        self
    }
}
