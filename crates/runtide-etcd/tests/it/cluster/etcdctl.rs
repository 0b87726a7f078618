//! `etcdctl` on one member: for calls that a store does not make; it shares no code with the store.

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

/// The longest that one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Time for the answer to a command that is tried again, as to a member that may stand still.
const HASTY: &str = "5s";

/// Time for the answer to a command that must succeed: a member on a busy machine takes seconds.
const PATIENT: &str = "30s";

/// Attempts at a command that must succeed. A member gives up a request after 7 s, whether it lands later or not.
const ATTEMPTS: usize = 5;

const STATUS: &[&str] = &["endpoint", "status", "--write-out", "fields"];

/// The error says that there was no answer in time, or no leader to give one.
fn is_late(error: &str) -> bool {
    ["timed out", "deadline exceeded", "no leader", "leader changed"].iter().any(|words| error.contains(words))
}

#[derive(Clone, Debug)]
pub struct Etcdctl {
    endpoint: String,
}

/// State of a member, as it reports itself.
#[derive(Clone, Debug)]
pub struct Status {
    pub member: u64,
    pub leader: u64,
    pub version: String,
    /// Bytes of its database.
    pub size: u64,
}

impl Etcdctl {
    pub fn of(endpoint: String) -> Self {
        Self { endpoint }
    }

    /// Runs a command; returns its stdout, or its stderr if it failed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.within(HASTY, arguments).await
    }

    async fn within(&self, time: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command
            .args(["--endpoints", &self.endpoint, "--dial-timeout", time, "--command-timeout", time])
            .args(arguments)
            .env_clear()
            .env("ETCDCTL_API", "3")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(LIMIT, command.output()).await;
        let output = ended.map_err(|_| format!("not within {LIMIT:?}"))?.map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs a command until the member has an answer for it, and returns its stdout, or its stderr if it failed. An
    /// earlier attempt may have done it.
    pub async fn answer(&self, arguments: &[&str]) -> Result<String, String> {
        let mut attempts = 1;
        loop {
            match self.within(PATIENT, arguments).await {
                Err(error) if attempts < ATTEMPTS && is_late(&error) => attempts += 1,
                // As "user name already exists".
                Err(error) if attempts > 1 && error.contains("already") => return Ok(String::new()),
                answer => return answer,
            }
        }
    }

    /// Runs a command that must succeed.
    pub async fn must(&self, arguments: &[&str]) -> String {
        self.answer(arguments).await.unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    /// All keys of the member.
    pub async fn keys(&self) -> Vec<String> {
        let text = self.must(&["get", "", "--from-key", "--keys-only"]).await;
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    pub async fn value(&self, key: &str) -> String {
        self.must(&["get", key, "--print-value-only"]).await.trim_end_matches('\n').to_owned()
    }

    pub async fn put(&self, key: &str, value: &str) {
        self.must(&["put", key, value]).await;
    }

    pub async fn compact(&self, revision: u64) -> Result<(), String> {
        match self.answer(&["compact", &revision.to_string()]).await {
            Err(error) if !error.contains("has been compacted") => Err(error),
            _ => Ok(()),
        }
    }

    pub async fn status(&self) -> Status {
        Self::read(&self.must(STATUS).await).unwrap()
    }

    /// The status of a member that may stand still.
    pub async fn try_status(&self) -> Result<Status, String> {
        Self::read(&self.run(STATUS).await?)
    }

    fn read(text: &str) -> Result<Status, String> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
            line.map(|value| value.trim_matches('"').to_owned()).ok_or_else(|| format!("no {name}: {text}"))
        };
        let number = |name: &str| field(name)?.parse::<u64>().map_err(|error| error.to_string());
        let (member, leader, size) = (number("MemberID")?, number("Leader")?, number("DBSize")?);
        Ok(Status { member, leader, version: field("Version")?, size })
    }
}
