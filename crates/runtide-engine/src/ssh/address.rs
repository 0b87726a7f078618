//! [`Ssh`]: the machine, the user and the socket that `ssh://user@host:port/path` names.

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// A daemon on another machine, which the system's `ssh` reaches: `ssh://user@host:port/path`. Its configuration, keys, agent and
/// known hosts are `ssh`'s own, so that `host` may be an alias of `~/.ssh/config`. Without a user and a port, `ssh` decides. The
/// path is that of the daemon's socket there; without one, the engine's own command line there decides.
///
/// ```
/// use runtide_engine::Endpoint;
///
/// let endpoint: Endpoint = "ssh://me@build-7:2222/run/docker.sock".parse()?;
/// let Endpoint::Ssh(ssh) = endpoint else { panic!() };
/// assert_eq!((ssh.user(), ssh.host(), ssh.port()), (Some("me"), "build-7", Some(2222)));
/// let endpoint = Endpoint::Ssh(ssh.with_program("/opt/openssh/bin/ssh"));
/// # let _ = endpoint;
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ssh {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    socket: Option<String>,
    program: PathBuf,
    identity: Option<String>,
    is_local_machine: bool,
}

/// Characters with a meaning to a shell: `ssh` hands user and host to the commands of its configuration (`ProxyCommand`, `Match
/// exec`), and refuses them itself only since 9.6.
const OF_A_SHELL: &str = "'`\"$;&<>|(){}";

/// Characters that end a part of the address, or begin an escape.
const ESCAPED: AsciiSet =
    CONTROLS.add(b' ').add(b'%').add(b'@').add(b':').add(b'/').add(b'?').add(b'#').add(b'[').add(b']');
const ESCAPED_IN_PATH: AsciiSet = CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

impl Ssh {
    /// Name of the user there; `None`: `ssh` decides.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Name or address, IPv6 without brackets, or an alias of `ssh`'s configuration.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port of the machine's sshd; `None`: `ssh` decides.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Path of the daemon's socket on that machine; `None`: the engine's command line there decides.
    pub fn socket(&self) -> Option<&str> {
        self.socket.as_deref()
    }

    /// Sets the program that is run; `ssh`, found by `PATH`, by default. It takes the arguments of OpenSSH's `ssh`.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Sets the file with the key, which `ssh` tries before its own; `None`: its own. `ssh` expands names in such a path, which this
    /// does not let it.
    ///
    /// # Errors
    /// The reason for which `ssh` could not be given that path.
    pub fn with_identity(mut self, path: Option<&str>) -> Result<Self, String> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            self.identity = None;
            return Ok(self);
        };
        if path.contains("${") || path.chars().any(char::is_control) {
            return Err("the key's path has a variable or a control character in it".to_owned());
        }
        let escaped = path.replace('%', "%%").replace('\\', r"\\").replace('"', "\\\"");
        self.identity = Some(if path.starts_with('/') { escaped } else { format!("./{escaped}") });
        Ok(self)
    }

    /// Takes the host's key unseen: for a virtual machine on this one, which makes its key when it is made. Any other host than the
    /// loopback address is checked all the same.
    #[must_use]
    pub fn with_local_machine(mut self, is_local_machine: bool) -> Self {
        let is_loopback = matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        self.is_local_machine = is_local_machine && is_loopback;
        self
    }

    pub(crate) fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Reads what stands behind `ssh://`.
    pub(crate) fn parse(rest: &str) -> Result<Self, String> {
        if rest.contains(['?', '#']) {
            return Err("expected ssh://user@host:port/path, without a query or a fragment".to_owned());
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password is not taken from an address: give ssh a key".to_owned());
        }
        let user = user.map(|user| decoded(user, "user")).transpose()?.filter(|user| !user.is_empty());
        if let Some(user) = &user {
            check(user, "user", |c| OF_A_SHELL.contains(c))?;
        }
        let (host, port) = host_and_port(host)?;
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        check(&host, "host", |c| OF_A_SHELL.contains(c) || "\\,/@".contains(c))?;
        let socket = Some(decoded(path, "path")?).filter(|path| !path.trim_matches('/').is_empty());
        if socket.as_ref().is_some_and(|path| path.chars().any(char::is_control)) {
            return Err("the path has a control character in it".to_owned());
        }
        Ok(Self { user, host, port, socket, program: PathBuf::from("ssh"), identity: None, is_local_machine: false })
    }

    /// The arguments of `ssh` that run `command` there, in the order in which the docker client has them. `--` ends the options.
    pub(crate) fn arguments(&self, command: &str, connect_deadline: Duration) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(identity) = &self.identity {
            // Not by `-i`, which looks for a file of this name before it expands it.
            arguments.extend(["-o".to_owned(), format!("IdentityFile=\"{identity}\"")]);
        }
        if self.is_local_machine {
            let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"];
            arguments.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
        }
        // Whole seconds; 0 would be the system's own limit, which is minutes.
        let seconds = connect_deadline.as_millis().div_ceil(1000).max(1);
        arguments.extend(["-o".to_owned(), format!("ConnectTimeout={seconds}"), "-T".to_owned(), "--".to_owned()]);
        arguments.extend([self.host.clone(), command.to_owned()]);
        arguments
    }
}

impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", utf8_percent_encode(user, &ESCAPED))?;
        }
        match self.host.split_once('%') {
            Some((address, zone)) => write!(f, "[{address}%25{zone}]")?,
            None if self.host.contains(':') => write!(f, "[{}]", self.host)?,
            None => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", utf8_percent_encode(self.socket.as_deref().unwrap_or_default(), &ESCAPED_IN_PATH))
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
            // The zone behind an address is escaped once, as in any URL.
            let host = host.replacen("%25", "%", 1);
            let address = host.split_once('%').map_or(host.as_str(), |(address, _)| address);
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "the brackets hold no IPv6 address")?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or("expected a colon")?) })
        }
        None if text.contains('%') => return Err("the host has an escape in it".to_owned()),
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    let port = match port {
        None | Some("") => None,
        Some(text) => Some(crate::port::port_of(text)?),
    };
    Ok((host, port))
}

fn decoded(text: &str, what: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| format!("the {what} is not UTF-8"))?;
    Ok(decoded.into_owned())
}

/// Refuses what `ssh`, or a shell that it runs, could take for something else, before anything runs.
fn check(text: &str, what: &str, is_refused: impl Fn(char) -> bool) -> Result<(), String> {
    if text.starts_with('-') {
        return Err(format!("the {what} begins with a dash, as an option does"));
    }
    if text.ends_with('\\') || text.chars().any(|c| c.is_whitespace() || c.is_control() || is_refused(c)) {
        return Err(format!("the {what} has a character in it that a shell reads"));
    }
    Ok(())
}

/// These words as a shell reads them back: `ssh` runs its command by the user's shell there.
pub(crate) fn quoted(words: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quote = |word: &String| {
        let plain = !word.is_empty() && word.chars().all(is_plain);
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        Ssh::parse(text).unwrap().arguments("x", Duration::from_millis(4200))
    }

    #[test]
    fn the_arguments_are_in_the_docker_clients_order() {
        let expected = ["-l", "me", "-p", "2222", "-o", "ConnectTimeout=5", "-T", "--", "h", "x"];
        assert_eq!(arguments("me@h:2222"), expected);
        assert_eq!(arguments("h"), ["-o", "ConnectTimeout=5", "-T", "--", "h", "x"]);
        assert_eq!(
            arguments("[fe80::1%25eth0]/run/docker.sock"),
            ["-o", "ConnectTimeout=5", "-T", "--", "fe80::1%eth0", "x"]
        );
        let never = Ssh::parse("h").unwrap().arguments("x", Duration::ZERO);
        assert_eq!(never.get(1).unwrap(), "ConnectTimeout=1", "0 would be no limit at all");
    }

    #[test]
    fn a_key_is_named_in_a_form_that_ssh_expands_to_itself() {
        let arguments = |path: &str| {
            let ssh = Ssh::parse("h").unwrap().with_identity(Some(path))?;
            Ok::<_, String>(ssh.arguments("x", Duration::from_secs(1)))
        };
        for (path, given) in [
            ("/k", "/k"),
            ("/a b/100%d", "/a b/100%%d"),
            ("~/k", "./~/k"),
            ("-k", "./-k"),
            (r#"/a"b\c"#, r#"/a\"b\\c"#),
        ] {
            let option = format!("IdentityFile=\"{given}\"");
            assert_eq!(arguments(path).unwrap().get(..2).unwrap(), ["-o", option.as_str()]);
        }
        assert_eq!(arguments("").unwrap().get(1).unwrap(), "ConnectTimeout=1", "none is named");
        for path in ["/${HOME}/k", "/a\nb", "/\0"] {
            arguments(path).unwrap_err();
        }
    }

    #[test]
    fn the_key_of_a_host_is_taken_unseen_of_a_machine_on_this_one_alone() {
        let unseen = |host: &str| {
            let ssh = Ssh::parse(host).unwrap().with_local_machine(true);
            ssh.arguments("x", Duration::from_secs(1)).contains(&"StrictHostKeyChecking=no".to_owned())
        };
        assert!(unseen("core@127.0.0.1:1234") && unseen("localhost") && unseen("[::1]"));
        assert!(!unseen("127.0.0.1.example") && !unseen("h"));
    }

    #[test]
    fn addresses_are_shown_as_they_are_read() {
        for text in [
            "h",
            "me@h",
            "me@h:22",
            "[::1]:22",
            "[fe80::1%25eth0]",
            "a%40b@h/run/my%20docker.sock",
            "EXAMPLE\\me@build-7.example:1/run/user/1000/docker.sock",
        ] {
            assert_eq!(Ssh::parse(text).unwrap().to_string(), format!("ssh://{text}"));
        }
        for (text, shown) in [("h/", "ssh://h"), ("h//", "ssh://h"), ("@h", "ssh://h"), ("h:", "ssh://h")] {
            assert_eq!(Ssh::parse(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Ssh::parse("a%40b@h/my%20docker.sock").unwrap().socket(), Some("/my docker.sock"));
        assert_eq!(Ssh::parse("a%40b@h").unwrap().user(), Some("a@b"));
    }

    #[test]
    fn what_ssh_or_a_shell_could_take_for_something_else_is_refused() {
        for text in [
            "",
            "/run/docker.sock",
            "me@",
            ":22",
            "-oProxyCommand=touch%20x",
            "-oProxyCommand=x",
            "me@-h",
            "-l@h",
            "%2Dl@h",
            "h;x",
            "$(x)@h",
            "h`x`",
            "a b@h",
            "me@a b",
            "h\nx",
            "%0Ax@h",
            "%ff@h",
            "h%2Dx",
            "h:0",
            "h:99999",
            "h:+1",
            "h:x",
            "::1",
            "[::1",
            "[h]",
            "me:secret@h",
            "me:@h",
            "h/a?b",
            "h/a#b",
            "h/a%00b",
            "h/a%0ab",
        ] {
            let refused = Ssh::parse(text).unwrap_err();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_command_is_quoted_for_the_shell_there() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            quoted(&words(&["docker", "--host=unix:///run/d.sock", "system"])),
            "docker --host=unix:///run/d.sock system"
        );
        assert_eq!(quoted(&words(&["a b", "it's", "", "$(x)"])), r"'a b' 'it'\''s' '' '$(x)'");
    }
}
