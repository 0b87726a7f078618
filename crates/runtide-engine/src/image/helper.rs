//! Programs that keep credentials, `docker-credential-…`: the registry's address on stdin, JSON on stdout.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use runtide_core::{ErrorKind, Result, backend::CallSite, manager::Secret};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// A keychain may have to ask its user.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer, in bytes.
const LARGEST: u64 = 1 << 20;
/// Begin of an answer that is shown in an error, in characters.
const SHOWN: usize = 200;
/// Text that each helper prints, with exit code 1, if it has nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A helper's answer.
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) secret: Secret,
}

/// The credentials for an address; `None`: the helper has none.
pub(super) async fn get(
    site: CallSite<'_>,
    folder: Option<&Path>,
    name: &str,
    address: &str,
) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let answer: Option<Answer> = run(site, folder, name, "get", address, DEADLINE).await?;
    // Some helpers answer with nothing in place of the text.
    let answer = answer.filter(|answer| !answer.username.is_empty() || !answer.secret.is_empty());
    Ok(answer.map(|answer| Credentials { username: answer.username, secret: Secret::new(answer.secret) }))
}

/// The addresses of which the helper has credentials.
pub(super) async fn list(site: CallSite<'_>, folder: Option<&Path>, name: &str) -> Result<Vec<String>> {
    let answer: Option<std::collections::BTreeMap<String, String>> =
        run(site, folder, name, "list", "unused", DEADLINE).await?;
    Ok(answer.into_iter().flatten().map(|(address, _)| address).collect())
}

/// One run of the program; `None`: it has nothing.
async fn run<T: DeserializeOwned>(
    site: CallSite<'_>,
    folder: Option<&Path>,
    name: &str,
    verb: &str,
    input: &str,
    deadline: Duration,
) -> Result<Option<T>> {
    let program = format!("docker-credential-{name}");
    let error = |kind, message: String| site.error(kind, message).with_context("helper", &program);
    // A name with a slash would be run from wherever it points to.
    if name.contains(['/', '\\', '\0']) {
        return Err(error(
            ErrorKind::InvalidInput,
            format!("'{}' is not the name of a credential helper", name.escape_debug()),
        ));
    }
    let path = folder.map_or_else(|| PathBuf::from(&program), |folder| folder.join(&program));
    let mut command = Command::new(path);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|cause| {
        error(ErrorKind::InvalidInput, format!("{program}, which has the credentials, cannot be run"))
            .with_source(cause)
    })?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let work = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input may still answer.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let read = async {
            let mut output = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(LARGEST).read_to_end(&mut output).await?;
            }
            std::io::Result::Ok(output)
        };
        let ((), output) = tokio::join!(write, read);
        Ok((output?, child.wait().await?))
    };
    let ended: std::io::Result<_> = match tokio::time::timeout(deadline, work).await {
        Ok(ended) => ended,
        Err(_) => return Err(error(ErrorKind::Timeout, format!("{program} did not answer within {deadline:?}"))),
    };
    let (output, status) = ended.map_err(|cause| {
        error(ErrorKind::Unexpected, format!("the answer of {program} cannot be read")).with_source(cause)
    })?;
    if status.success() {
        // serde's text may quote the answer, which holds the secret.
        return serde_json::from_slice(&output).map(Some).map_err(|_| {
            error(ErrorKind::Protocol, format!("the answer of {program} is not what a credential helper prints"))
        });
    }
    let text = String::from_utf8_lossy(&output);
    let text = text.trim();
    if text == NOT_FOUND {
        return Ok(None);
    }
    // A helper that fails after it printed credentials must not show them.
    let shown: String = if text.contains(['{', '}']) { String::new() } else { text.chars().take(SHOWN).collect() };
    let message = format!("{program} failed ({status}): {}", shown.escape_debug());
    Err(error(ErrorKind::Unauthenticated, message.trim_end_matches([':', ' ']).to_owned()))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use runtide_core::BackendId;

    use super::*;

    /// A helper that runs this script.
    fn helper(script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-fake");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    async fn got(script: &str) -> Result<Option<(String, String)>> {
        let (folder, id) = (helper(script), BackendId::from("engine:test"));
        let got = get(CallSite::new("engine.pull", &id), Some(folder.path()), "fake", "localhost:5000").await?;
        Ok(got.map(|got| (got.username, got.secret.expose().to_owned())))
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_the_address_and_its_chatter_is_not_its_answer() {
        let script = r#"read -r address; echo chatter >&2; [ "$1" = get ] && echo "{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"of $address\"}""#;
        assert_eq!(got(script).await.unwrap(), Some(("me".to_owned(), "of localhost:5000".to_owned())));
        let deaf = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(got(deaf).await.unwrap(), Some(("<token>".to_owned(), "t".to_owned())));
        let listed = helper(r#"echo '{"https://a.b":"me","c.d":"you"}'"#);
        let id = BackendId::from("engine:test");
        let listed = list(CallSite::new("engine.build", &id), Some(listed.path()), "fake").await.unwrap();
        assert_eq!(listed, ["c.d", "https://a.b"]);
    }

    #[tokio::test]
    async fn nothing_found_is_no_error_and_a_failure_shows_no_secret() {
        let missing = format!("echo '{NOT_FOUND}'; exit 1");
        assert_eq!(got(&missing).await.unwrap(), None);
        assert_eq!(got("echo '{}'").await.unwrap(), None);
        let error = got("echo 'the keychain is locked'; exit 1").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unauthenticated && error.to_string().contains("locked"), "{error}");
        for script in
            [r#"echo '{"Secret":"hunter2"}'; exit 1"#, r#"echo '{"Secret":"hunter2", '"#, "echo hunter2 >&2; exit 3"]
        {
            let error = got(script).await.unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_or_is_a_path_is_refused() {
        let (folder, id) = (helper("echo '{}'"), BackendId::from("engine:test"));
        for name in ["other", "../fake", "a/../fake", "a\0b"] {
            let error = get(CallSite::new("engine.pull", &id), Some(folder.path()), name, "x").await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_does_not_answer_is_ended() {
        let (folder, id) = (
            helper(r#"echo $$ > "${0%/*}/pid.new" && mv "${0%/*}/pid.new" "${0%/*}/pid"; exec sleep 1000"#),
            BackendId::from("engine:test"),
        );
        let (site, pid) = (CallSite::new("engine.pull", &id), folder.path().join("pid"));
        let ask = async |deadline| -> ErrorKind {
            run::<serde_json::Value>(site, Some(folder.path()), "fake", "get", "x", deadline).await.unwrap_err().kind()
        };
        // A loaded machine may need longer than the deadline to start the script.
        let mut deadline = Duration::from_millis(200);
        while !pid.exists() {
            assert_eq!(ask(deadline).await, ErrorKind::Timeout);
            deadline *= 2;
        }
        let pid = std::fs::read_to_string(pid).unwrap();
        let is_there = || {
            let found = std::process::Command::new("ps").args(["-o", "stat=", "-p", pid.trim()]).output().unwrap();
            let state = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            !state.is_empty() && !state.starts_with('Z')
        };
        let ended = async {
            while is_there() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the helper runs on");
    }
}
