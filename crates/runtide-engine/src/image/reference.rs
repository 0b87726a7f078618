//! [`Reference`]: the name or id of an image, parsed as the engines' own clients do.

use std::fmt;

/// Registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The same registry under the name of the index that it had before.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Folder of the images in the default registry whose names have no folder.
const OFFICIAL: &str = "library/";
/// Longest path of a name, in bytes.
const LONGEST_PATH: usize = 255;
/// Longest tag, in bytes.
const LONGEST_TAG: usize = 128;
/// Algorithms of a digest, and the number of their hexadecimal digits.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// An image, by its whole id or by a name. A shortened id cannot be distinguished from a name, and counts as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A whole id, as `sha256:` and 64 digits.
    Id(String),
    /// A name.
    Name(Name),
}

impl Reference {
    /// Parses an id or a name.
    ///
    /// # Errors
    /// The reason, for a text that is neither.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if is_identifier(text) {
            return Ok(Self::Id(format!("sha256:{text}")));
        }
        if is_digest(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        Name::parse(text).map(Self::Name)
    }
}

/// A name: registry, path, and at most a tag and a digest.
///
/// ```
/// use runtide_engine::image::Name;
///
/// let name = Name::parse("busybox")?.exact();
/// assert_eq!(name.repository(), "docker.io/library/busybox");
/// assert_eq!(name.to_string(), "busybox:latest"); // as `docker images` shows it
/// # Ok::<(), runtide_engine::image::Malformed>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Name {
    /// Parses a name. A registry is recognised by a dot, a port, capitals or as `localhost`; any other name is one of the default
    /// registry.
    ///
    /// # Errors
    /// The reason, for a text that is not a name.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(Malformed("it is empty"));
        }
        if is_identifier(text) {
            return Err(Malformed("64 hexadecimal digits are an id, not a name"));
        }
        let (registry, rest) = split_registry(text);
        let remote = rest.split_once(':').map_or(&*rest, |(remote, _)| remote);
        if remote.chars().any(char::is_uppercase) {
            return Err(Malformed("capitals cannot be in it, except in a registry's or a tag's name"));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(Malformed("behind '@' a digest is expected, as sha256: and 64 hexadecimal digits")),
            None => (&*rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(Malformed("behind ':' a tag is expected: up to 128 letters, digits, '_', '.', '-'")),
            None => (rest, None),
        };
        let whole = format!("{registry}/{path}");
        let (registry, path) = match (is_registry(registry), is_path(path), is_path(&whole)) {
            (true, true, _) => (registry.to_owned(), path.to_owned()),
            // A first part with a dot that is no host, as `a_b.c/d`: a path without a registry.
            (false, _, true) => (String::new(), whole),
            _ => return Err(Malformed("it is not a name: expected registry/path:tag")),
        };
        if path.len() > LONGEST_PATH {
            return Err(Malformed("it is too long: more than 255 characters"));
        }
        Ok(Self { registry, path, tag, digest })
    }

    /// The name with one of digest and tag, as it is pulled: the digest if it has one, else the tag, else `latest`. A pull without
    /// either would be one of every tag.
    #[must_use]
    pub fn exact(mut self) -> Self {
        match &self.digest {
            Some(_) => self.tag = None,
            None => drop(self.tag.get_or_insert_with(|| "latest".to_owned())),
        }
        self
    }

    /// The registry's host, with the port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Registry and path, without shortening.
    pub fn repository(&self) -> String {
        if self.registry.is_empty() { self.path.clone() } else { format!("{}/{}", self.registry, self.path) }
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

impl fmt::Display for Name {
    /// The short form, in which the default registry is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let official = self.path.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/'));
        let short = official.unwrap_or(&self.path);
        // Without its registry `docker.io/a.b/c` would be a name in the registry `a.b`, and 64 digits an id.
        if self.registry == DEFAULT_REGISTRY && split_registry(short).0 == DEFAULT_REGISTRY && !is_identifier(short) {
            f.write_str(short)?;
        } else {
            f.write_str(&self.repository())?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The reason why a text is not the name of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// The registry, and the rest with the folder that it has in full.
fn split_registry(text: &str) -> (&str, String) {
    let (registry, rest) = match text.split_once('/') {
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    };
    let official = registry == DEFAULT_REGISTRY && !rest.contains('/');
    (registry, if official { format!("{OFFICIAL}{rest}") } else { rest.to_owned() })
}

fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

fn is_digest(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(algorithm, digits)| DIGESTS.contains(&(algorithm, digits.len())) && digits.bytes().all(is_hex))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=LONGEST_TAG).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// A host name, an IPv4 address or an IPv6 address in brackets, and at most a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let is_address =
                !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            if !is_address {
                return false;
            }
            (None, port)
        }
        None => (Some(text), ""),
    };
    let (host, port) = match host {
        Some(host) => match host.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(host), None),
        },
        None => (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) }),
    };
    let is_label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(is_label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Parts between slashes, each of small letters and digits with separators between them: one dot, one or two underscores, or any
/// number of dashes.
fn is_path(text: &str) -> bool {
    text.split('/').all(|part| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
        let framed = part.bytes().next().is_some_and(is_letter) && part.bytes().last().is_some_and(is_letter);
        framed && part.split(|character: char| character.is_ascii() && is_letter(character as u8)).all(is_separator)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

    #[test]
    fn names_are_expanded_and_shortened_as_the_engines_clients_do() {
        let table = [
            ("busybox", "docker.io/library/busybox", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox", "busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox:latest"),
            ("index.docker.io/library/busybox:1", "docker.io/library/busybox", "busybox:1"),
            ("library/foo/bar", "docker.io/library/foo/bar", "library/foo/bar:latest"),
            ("someone/thing", "docker.io/someone/thing", "someone/thing:latest"),
            ("localhost/thing", "localhost/thing", "localhost/thing:latest"),
            ("localhost:5000/thing:a", "localhost:5000/thing", "localhost:5000/thing:a"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("[fc00::1]:5000/docker", "[fc00::1]:5000/docker", "[fc00::1]:5000/docker:latest"),
            ("FOO/bar", "FOO/bar", "FOO/bar:latest"),
            ("192.168.0.1:80", "docker.io/library/192.168.0.1", "192.168.0.1:80"),
            ("a_b.c/d", "a_b.c/d", "a_b.c/d:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c:latest"),
            ("dock__er/do---cker", "docker.io/dock__er/do---cker", "dock__er/do---cker:latest"),
        ];
        for (text, repository, short) in table {
            let name = Name::parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).exact();
            assert_eq!((name.repository().as_str(), name.to_string().as_str()), (repository, short), "{text}");
        }
        let both = Name::parse(&format!("a.b/c:1@{DIGEST}")).unwrap();
        assert_eq!((both.registry(), both.tag(), both.digest()), ("a.b", Some("1"), Some(DIGEST)));
        assert_eq!(both.exact().to_string(), format!("a.b/c@{DIGEST}"));
        let digest = Name::parse(&format!("busybox@{DIGEST}")).unwrap().exact();
        assert_eq!((digest.tag(), digest.to_string()), (None, format!("busybox@{DIGEST}")));
    }

    #[test]
    fn texts_that_are_no_names_are_refused() {
        let digits = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a";
        let long = format!("{}/docker", "a".repeat(300));
        for text in [
            "",
            " ",
            "a b",
            "a\0",
            "a\nb",
            "é",
            "https://github.com/docker/docker",
            "docker/Docker",
            "-docker",
            "docker-",
            "-docker.io/docker/docker",
            "docker///docker",
            "docker/",
            "/docker",
            "[fc00::1]",
            "[fc00::1]:5000",
            "fc00::1:5000/debian",
            "[fe80::1%eth0]:5000/debian",
            "____/____",
            "_docker/_docker",
            "dock..er/docker",
            "dock_.er/docker",
            "dock-.er/docker",
            "../etc/passwd",
            "a/../b",
            "a:",
            "a:-b",
            "a:b:c",
            "a@",
            "a@sha256:12",
            "a@md5:7cc4b5aefd1d0cadf8d97d4350462ba5",
            "a?x=1",
            "a#b",
            "a%2f",
            "localhost:/a",
            "[]:5/a",
            digits,
            &long,
            &format!("a:{}", "b".repeat(129)),
            &format!("a@{}", DIGEST.to_uppercase()),
        ] {
            assert!(Name::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ids_are_ids() {
        let digits = DIGEST.strip_prefix("sha256:").unwrap();
        for text in [DIGEST, digits] {
            assert_eq!(Reference::parse(text).unwrap(), Reference::Id(DIGEST.to_owned()));
        }
        assert!(matches!(Reference::parse("7cc4b5aefd1d").unwrap(), Reference::Name(_)), "it may be either");
        assert!(matches!(Reference::parse("sha256:7cc4").unwrap(), Reference::Name(_)));
    }

    proptest! {
        #[test]
        fn a_name_in_its_short_form_is_the_same_name(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(Name::parse(&name.to_string()), Ok(name));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Reference::parse(&text);
        }
    }
}
