//! [`Homes`]: the home directory of an image's user, from the image's own `/etc/passwd`.
//!
//! The daemon does not report it. A container is created, never started, and removed again; an image's content never changes, so that
//! each image costs one.

use std::{collections::BTreeMap, io::Read, path::PathBuf, sync::Mutex};

use http_body_util::{BodyExt, Limited};
use runtide_core::{
    ErrorKind, Result,
    backend::{CreateGuard, lock},
};

use super::Description;
use crate::{
    client::Client,
    dialect::Dialect,
    late::{self, LATEST_ANSWER},
    request::{Request, segment},
    transport::as_io,
};

const PASSWD: &str = "/etc/passwd";
/// Links that are followed to the file.
const LINKS: usize = 8;
/// Largest file, with its headers, in bytes.
const LARGEST: usize = 4 << 20;
/// Images whose homes are kept; past it all are forgotten.
const KEPT: usize = 256;

/// The homes that are known, by image.
#[derive(Debug, Default)]
pub struct Homes {
    by_image: Mutex<BTreeMap<String, Option<PathBuf>>>,
}

impl Homes {
    /// The home directory of the image's user. `None`: the image has no such file, the file no such user, or the daemon lets no
    /// container be made. `create` is the request that makes a container of the image under this name; it has a label by which one
    /// that a killed process leaves behind is found.
    ///
    /// # Errors
    /// `NotFound` for an image that is gone; `Unavailable`, `Timeout`, `Cancelled` and `RateLimited`: it may be known the next time.
    ///
    /// # Cancel safety
    /// A dropped future removes the container in a task, also one whose creation is under way.
    pub async fn of<D: Dialect>(
        &self,
        client: &Client<D>,
        operation: &'static str,
        image: &Description,
        create: impl FnOnce(&str) -> Request,
    ) -> Result<Option<PathBuf>> {
        if image.is_windows() {
            return Ok(None);
        }
        if let Some(known) = lock(&self.by_image).get(image.id()) {
            return Ok(known.clone());
        }
        let site = client.site(operation);
        let name = format!("runtide-inspect-{}", uuid::Uuid::new_v4().simple());
        let request = create(&name);
        let read = read_passwd(client, operation, name, request);
        let passwd = match client.within(site, client.deadline(), read).await {
            Ok(passwd) => passwd,
            // These may be otherwise next time.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::RateLimited
                ) =>
            {
                return Err(error);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(error.with_context("image", image.id())),
            Err(error) => {
                tracing::debug!(%error, image = image.id(), "the home directory of its user is not known");
                return Ok(None);
            }
        };
        let home = passwd.as_deref().and_then(|passwd| home_of(passwd, image.user())).map(PathBuf::from);
        let mut known = lock(&self.by_image);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(image.id().to_owned(), home.clone());
        Ok(home)
    }
}

/// The file of an image; `None`: it has none.
async fn read_passwd<D: Dialect>(
    client: &Client<D>,
    operation: &'static str,
    name: String,
    request: Request,
) -> Result<Option<Vec<u8>>> {
    let create = create(client.clone(), operation, name.clone(), request);
    let guard = late::seen_through(client, operation, create).await?;
    let read = async {
        let mut path = PASSWD.to_owned();
        for _ in 0..LINKS {
            match file_in(client, operation, &name, &path).await? {
                Some(Found::Contents(contents)) => return Ok(Some(contents)),
                Some(Found::Link(target)) => path = target,
                None => return Ok(None),
            }
        }
        Ok(None)
    };
    let read = read.await;
    guard.undo().await;
    read
}

/// Makes the container.
async fn create<D: Dialect>(
    client: Client<D>,
    operation: &'static str,
    name: String,
    request: Request,
) -> Result<CreateGuard> {
    let of = client.outliving_close();
    let outliving = of.clone();
    let guard = move || {
        CreateGuard::new(of.site(operation), &name, of.deadline(), {
            let (client, name) = (of.clone(), name.clone());
            move || remove(client.clone(), operation, name.clone())
        })
    };
    let first = guard();
    match client.call(operation, request, LATEST_ANSWER).await {
        Ok(_) => Ok(first),
        Err(error) => {
            first.keep();
            late::undo(&outliving, operation, &error, guard).await;
            Err(error)
        }
    }
}

/// Removes the container with its anonymous volumes, for which the two engines have different words. Without a timeout Podman waits.
async fn remove<D: Dialect>(client: Client<D>, operation: &'static str, name: String) -> Result<()> {
    let request = Request::delete(format!("/containers/{name}?force=1&v=1&volumes=1&timeout=0"));
    match client.call(operation, request, client.deadline()).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

enum Found {
    Contents(Vec<u8>),
    /// Path of the link's target.
    Link(String),
}

async fn file_in<D: Dialect>(
    client: &Client<D>,
    operation: &'static str,
    container: &str,
    path: &str,
) -> Result<Option<Found>> {
    let request = Request::get(format!("/containers/{container}/archive?path={}", segment(path)));
    let response = match client.open(operation, request).await {
        Ok(response) => response,
        // Of a container that another client removed nothing is known, also not that it has no such file.
        Err(error) if error.message().to_ascii_lowercase().contains("no such container") => {
            return Err(client.site(operation).error(ErrorKind::Conflict, error.message()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A container that was never started: reading slowly would hold nothing back, but it is read at once all the same.
    let bytes = match Limited::new(response.into_body(), LARGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return match error.downcast::<hyper::Error>() {
                Ok(error) => Err(client.broken(client.site(operation), as_io(*error))),
                // Larger than any list of users.
                Err(_) => Ok(None),
            };
        }
    };
    Ok(found_in(&bytes, path))
}

/// The first entry of an archive.
fn found_in(archive: &[u8], path: &str) -> Option<Found> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries().ok()?.next()?.ok()?;
    if entry.header().entry_type().is_symlink() {
        let target = entry.link_name_bytes()?;
        let target = str::from_utf8(&target).ok()?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        return Some(Found::Link(if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("{folder}/{target}")
        }));
    }
    if !entry.header().entry_type().is_file() {
        return None;
    }
    let mut contents = Vec::new();
    entry.read_to_end(&mut contents).ok()?;
    Some(Found::Contents(contents))
}

/// The home of a user by name or number, as the runtime finds it: the first entry that matches; root, if none is named.
fn home_of(passwd: &[u8], user: &str) -> Option<String> {
    let number = if user.is_empty() { Some(0) } else { user.parse::<u32>().ok() };
    let home = |line: &[u8]| {
        let line = str::from_utf8(line).ok()?.trim();
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, home) = (fields.first()?, fields.get(2)?.parse::<u32>().ok()?, fields.get(5)?);
        let matches = number.map_or(*name == user, |number| number == uid);
        (matches && home.starts_with('/')).then(|| (*home).to_owned())
    };
    passwd.split(|byte| *byte == b'\n').find_map(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_that_of_the_first_entry_that_matches() {
        let passwd = b"# users\n\nroot:x:0:0:root:/root:/bin/sh\r\nweb:x:1000:1000:Web, 1:/srv/w e b:/bin/sh\nbad\nroot2:x:0:0::/other:\n\xff:x:7:7::/x:\nno:x:9:9:::\n";
        for (user, home) in [
            ("", Some("/root")),
            ("root", Some("/root")),
            ("0", Some("/root")),
            ("web", Some("/srv/w e b")),
            ("1000", Some("/srv/w e b")),
            ("root2", Some("/other")),
            ("1001", None),
            ("other", None),
            ("7", None),
            ("no", None),
        ] {
            assert_eq!(home_of(passwd, user).as_deref(), home, "{user}");
        }
        assert_eq!(home_of(b"", ""), None);
    }

    #[test]
    fn a_link_is_followed_from_its_folder() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "passwd", "../usr/passwd").unwrap();
        let bytes = tar.into_inner().unwrap();
        assert!(matches!(found_in(&bytes, "/etc/passwd"), Some(Found::Link(path)) if path == "/etc/../usr/passwd"));
        assert!(found_in(b"no archive", "/etc/passwd").is_none());
    }
}
