//! Addresses of a bus, as the D-Bus specification defines them and sd-bus reads them: values are unescaped, unknown keys
//! are ignored.

use std::{ffi::OsString, num::NonZeroUsize, os::unix::ffi::OsStringExt, path::PathBuf};

use runtide_core::ErrorKind;
use zbus::{
    Address, Connection, Guid,
    address::transport::{Tcp, TcpTransportFamily, Transport, Unix, UnixSocket},
    connection::{AuthMechanism, Builder},
};

/// The reason why no bus can be reached at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A transport that is not supported.
    Transport(String),
    Invalid(&'static str),
}

impl Flaw {
    /// The kind and the message of the error.
    pub(crate) fn explained(&self, address: &str) -> (ErrorKind, String) {
        match self {
            Self::Transport(other) => (ErrorKind::Unsupported, format!("'{other}' is not supported: unix and tcp are")),
            Self::Invalid(why) => (ErrorKind::InvalidInput, format!("'{address}' is no address of a bus: {why}")),
        }
    }
}

/// Parses one address.
pub(crate) fn parse(address: &str) -> Result<Address, Flaw> {
    let (transport, pairs) = address.split_once(':').ok_or(Flaw::Invalid("there is no transport, as unix:"))?;
    let keys = Keys(pairs);
    let transport = match transport {
        "unix" => Transport::Unix(Unix::new(socket(&keys)?)),
        "tcp" => Transport::Tcp(tcp(&keys)?),
        // The others start programs (unixexec, autolaunch), a side effect that no caller expects of an address, or are
        // not known to sd-bus either.
        other => return Err(Flaw::Transport(other.to_owned())),
    };
    let address = Address::new(transport);
    // To sd-bus a guid of zeros is none.
    match keys.text("guid")?.filter(|guid| guid.bytes().any(|digit| digit != b'0')) {
        None => Ok(address),
        Some(guid) => Guid::try_from(guid.as_str())
            .and_then(|guid| address.set_guid(guid))
            .map_err(|_| Flaw::Invalid("its guid is not of 32 hexadecimal digits")),
    }
}

fn socket(keys: &Keys<'_>) -> Result<UnixSocket, Flaw> {
    match (keys.value("path")?, keys.value("abstract")?) {
        (Some(path), None) => Ok(UnixSocket::File(PathBuf::from(OsString::from_vec(path)))),
        #[cfg(target_os = "linux")]
        (None, Some(name)) => Ok(UnixSocket::Abstract(OsString::from_vec(name))),
        (Some(_), Some(_)) => Err(Flaw::Invalid("it has both a path and an abstract name")),
        // The other keys (dir, tmpdir, runtime) are for servers.
        _ => Err(Flaw::Invalid("it needs path=")),
    }
}

fn tcp(keys: &Keys<'_>) -> Result<Tcp, Flaw> {
    let (host, port) = (keys.text("host")?, keys.text("port")?);
    let (Some(host), Some(port)) = (host, port) else { return Err(Flaw::Invalid("it needs host= and port=")) };
    let port = port.parse().map_err(|_| Flaw::Invalid("its port is not a number below 65536"))?;
    let family = match keys.text("family")?.as_deref() {
        None => None,
        Some("ipv4") => Some(TcpTransportFamily::Ipv4),
        Some("ipv6") => Some(TcpTransportFamily::Ipv6),
        Some(_) => return Err(Flaw::Invalid("its family is neither ipv4 nor ipv6")),
    };
    Ok(Tcp::new(&host, port).set_family(family))
}

/// The keys and values of an address.
struct Keys<'a>(&'a str);

impl Keys<'_> {
    /// Value of a key, unescaped.
    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, Flaw> {
        let pairs = self.0.split(',').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(other, _)| *other == key).map(|(_, value)| value);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Flaw::Invalid("it has a key twice"));
        }
        let value = unescaped(value).ok_or(Flaw::Invalid("a % is not followed by two hexadecimal digits"))?;
        if value.is_empty() || value.contains(&0) {
            return Err(Flaw::Invalid("a value is empty, or has a zero byte"));
        }
        Ok(Some(value))
    }

    /// Value of a key that is a text.
    fn text(&self, key: &str) -> Result<Option<String>, Flaw> {
        let text = self.value(key)?.map(String::from_utf8).transpose();
        text.map_err(|_| Flaw::Invalid("a value is not UTF-8"))
    }
}

/// The bytes of a value; `None`: a `%` is not followed by two hexadecimal digits. As in sd-bus, bytes that should be
/// escaped need not be.
fn unescaped(value: &str) -> Option<Vec<u8>> {
    let mut bytes = value.bytes();
    let mut all = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        all.push(if byte == b'%' {
            let mut digit = || u8::try_from(char::from(bytes.next()?).to_digit(16)?).ok();
            (digit()? << 4) | digit()?
        } else {
            byte
        });
    }
    Some(all)
}

/// Escapes a value, as the D-Bus specification does.
pub(crate) fn escaped(value: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

/// Connects to a bus. Over TCP, where the bus may know no user, it is asked to let this process in without a name after
/// it refused the user of this process.
pub(crate) async fn connect(address: &Address, queue: NonZeroUsize) -> zbus::Result<Connection> {
    let dial = |mechanism| Builder::address(address.clone()).auth_mechanism(mechanism).max_queued(queue).build();
    match dial(AuthMechanism::External).await {
        // A bus that refuses one closes the connection, perhaps before the refusal was read.
        Err(refused @ (zbus::Error::Handshake(_) | zbus::Error::InputOutput(_)))
            if matches!(address.transport(), Transport::Tcp(_)) =>
        {
            dial(AuthMechanism::Anonymous).await.map_err(|_| refused)
        }
        dialled => dialled,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        path::Path,
        process::{Child, Command, Stdio},
    };

    use super::*;

    fn file(path: &[u8]) -> Address {
        let path = PathBuf::from(OsString::from_vec(path.to_owned()));
        Address::new(Transport::Unix(Unix::new(UnixSocket::File(path))))
    }

    #[test]
    fn each_key_has_the_meaning_that_it_has_for_sd_bus() {
        let guid = "0123456789abcdef0123456789ABCDEF";
        for (address, expected) in [
            ("unix:path=/a/b".to_owned(), file(b"/a/b")),
            ("unix:path=/a%20b%2c%3b%25%c3%bc".to_owned(), file("/a b,;%ü".as_bytes())),
            ("unix:path=/%FF".to_owned(), file(b"/\xff")),
            ("unix:path=/not escaped (ü)=1".to_owned(), file("/not escaped (ü)=1".as_bytes())),
            ("unix:path=/a,unknown=%zz,other,".to_owned(), file(b"/a")),
            ("unix:runtime=yes,path=/a".to_owned(), file(b"/a")),
            (format!("unix:guid={guid},path=/a"), file(b"/a").set_guid(Guid::try_from(guid).unwrap()).unwrap()),
            ("tcp:host=%3a%3a1,port=%37,family=ipv6,bind=*".to_owned(), {
                Address::new(Transport::Tcp(Tcp::new("::1", 7).set_family(Some(TcpTransportFamily::Ipv6))))
            }),
            ("tcp:noncefile=/n,port=7,host=localhost".to_owned(), {
                Address::new(Transport::Tcp(Tcp::new("localhost", 7)))
            }),
        ] {
            assert_eq!(parse(&address), Ok(expected), "{address}");
        }
        for address in [
            "",
            "unix",
            "unix:",
            "unix:path=",
            "unix:path=/a%2",
            "unix:path=/a%g0",
            "unix:path=/%00",
            "unix:dir=/a",
            "unix:path=/a,path=/b",
            "unix:path=/a,abstract=b",
            "unix:path=/a,guid=1",
            "tcp:host=a",
            "tcp:port=1",
            "tcp:host=a,port=65536",
            "tcp:host=a,port=+1x",
            "tcp:host=a,port=1,family=ipx",
            "tcp:host=%ff,port=1",
        ] {
            assert!(matches!(parse(address), Err(Flaw::Invalid(_))), "{address}");
        }
        for address in ["unixexec:path=/bin/sh", "autolaunch:", "nonce-tcp:host=a,port=1,noncefile=/n", "launchd:env=A"]
        {
            assert!(matches!(parse(address), Err(Flaw::Transport(_))), "{address}");
        }
    }

    #[test]
    fn what_is_escaped_is_unescaped_to_the_same() {
        let all: Vec<u8> = (1..=255).collect();
        assert_eq!(unescaped(&escaped(&all)), Some(all));
    }

    /// A bus of its own, with several addresses.
    struct Bus {
        child: Child,
        addresses: String,
    }

    impl Bus {
        /// `None`: no `dbus-daemon` is installed.
        fn start(folder: &Path, name: &str, listen: &[String], mechanisms: &[&str]) -> Option<Self> {
            let each = |tag: &str, texts: &[String]| {
                texts.iter().map(|text| format!("<{tag}>{text}</{tag}>")).collect::<Vec<_>>().concat()
            };
            let mechanisms: Vec<String> = mechanisms.iter().map(|&one| one.to_owned()).collect();
            let (listen, mechanisms) = (each("listen", listen), each("auth", &mechanisms));
            let config = folder.join(name);
            let text = format!(
                "<busconfig>{listen}{mechanisms}<allow_anonymous/><policy context=\"default\"><allow user=\"*\"/>\
                 <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>"
            );
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("dbus-daemon");
            command.args(["--nofork", "--print-address"]).arg("--config-file").arg(config);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
            let mut addresses = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut addresses).unwrap();
            Some(Self { child, addresses: addresses.trim().to_owned() })
        }
    }

    impl Drop for Bus {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    async fn reach(address: &str) -> Result<(), String> {
        let address = parse(address).map_err(|flaw| format!("{flaw:?}"))?;
        let connected = connect(&address, NonZeroUsize::MIN).await.map_err(|error| error.to_string())?;
        connected.unique_name().map(drop).ok_or_else(|| "it has no name".to_owned())
    }

    /// True if `busctl` reaches a bus there; `None`: it is not installed.
    fn does_busctl(address: &str) -> Option<bool> {
        let bus = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"];
        let mut command = Command::new("busctl");
        command.arg(format!("--address={address}")).arg("call").args(bus);
        Some(command.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?.success())
    }

    #[tokio::test]
    async fn a_bus_is_reached_wherever_busctl_reaches_it() {
        let folder = tempfile::tempdir().unwrap();
        let hard = folder.path().join("a b,;%ü'(\u{1})");
        std::fs::create_dir(&hard).unwrap();
        let hard = escaped(hard.join("bus").as_os_str().as_encoded_bytes());
        let name = format!("runtide%20test%2c{}", std::process::id());
        let listen =
            [format!("unix:path={hard}"), format!("unix:abstract={name}"), "tcp:host=127.0.0.1,port=0".to_owned()];
        let Some(bus) = Bus::start(folder.path(), "both", &listen, &["EXTERNAL", "ANONYMOUS"]) else {
            return runtide_conformance::report::skip("addresses", "systemd", "dbus-daemon is not installed");
        };
        let reported: Vec<&str> = bus.addresses.split(';').collect();
        assert_eq!(reported.len(), 3, "{}", bus.addresses);
        let port = bus.addresses.split([',', ';']).find_map(|pair| pair.strip_prefix("port=")).unwrap();
        let mut addresses: Vec<String> = reported.iter().map(|&one| one.to_owned()).collect();
        addresses.extend(listen[..2].iter().cloned());
        addresses.extend([
            format!("tcp:host=%6cocalhost,port={port},family=ipv4"),
            format!("tcp:host=127.0.0.1,port={port},bind=x,unknown=%zz"),
            format!("unix:path={hard},guid=00000000000000000000000000000000"),
            format!("unix:path={hard},guid=00000000000000000000000000000001"),
            format!("unix:path={hard},path={hard}"),
            format!("unix:path={hard}%2"),
            format!("unix:dir={hard}"),
        ]);
        for address in &addresses {
            let reached = reach(address).await;
            // Over TCP busctl has no other mechanism when the bus refuses the user.
            if let Some(expected) = does_busctl(address).filter(|&expected| expected || address.starts_with("unix:")) {
                assert_eq!(reached.is_ok(), expected, "{address}: {reached:?}");
            }
        }
        for address in &addresses[..7] {
            assert_eq!(reach(address).await, Ok(()), "{address}");
        }
    }

    #[tokio::test]
    async fn over_tcp_a_bus_is_reached_by_the_mechanism_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let tcp = ["tcp:host=127.0.0.1,port=0".to_owned()];
        let Some(nameless) = Bus::start(folder.path(), "nameless", &tcp, &["ANONYMOUS"]) else {
            return runtide_conformance::report::skip("addresses", "systemd", "dbus-daemon is not installed");
        };
        assert_eq!(reach(&nameless.addresses).await, Ok(()));

        // As a socket of systemd's bus that is forwarded: the bus sees the user of the forwarder.
        let socket = folder.path().join("bus");
        let unix = [format!("unix:path={}", escaped(socket.as_os_str().as_encoded_bytes()))];
        let _named = Bus::start(folder.path(), "named", &unix, &["EXTERNAL"]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let forwarder = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut bus = tokio::net::UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut bus).await });
            }
        });
        assert_eq!(reach(&format!("tcp:host=127.0.0.1,port={port}")).await, Ok(()));
        forwarder.abort();
    }
}
