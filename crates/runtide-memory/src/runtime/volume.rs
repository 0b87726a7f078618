//! The runtime's volumes: their contents are kept as the entries of a tar archive, and never unpacked.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use runtide_core::{
    Error, ErrorKind, InstanceId, Labels, Result,
    manager::{Effect, MountSource, VolumeId, VolumeInfo, VolumeSpec},
};

use super::{State, check_labels, check_name};
use crate::fault::Call;

const BLOCK: usize = 512;

#[derive(Debug)]
pub(super) struct Volume {
    labels: Labels,
    created_at: SystemTime,
    entries: Vec<Bytes>,
}

impl State {
    pub(crate) fn create_volume(&mut self, spec: &VolumeSpec) -> Result<VolumeId> {
        check_labels(&spec.labels)?;
        if spec.driver.as_ref().is_some_and(|driver| driver != "memory") {
            return Err(Error::new(ErrorKind::Unsupported, Call::Volumes.operation(), "the only driver is 'memory'"));
        }
        if !spec.options.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, Call::Volumes.operation(), "the driver has no options"));
        }
        let id = if let Some(name) = &spec.name {
            check_name(name)?;
            VolumeId::from(name.as_str())
        } else {
            // A name that a caller chose is passed over; one that was removed does not come again.
            loop {
                self.next_volume += 1;
                let id = VolumeId::from(self.boot.id("vol", self.next_volume));
                if !self.volumes.contains_key(&id) {
                    break id;
                }
            }
        };
        if let Some(there) = self.volumes.get(&id) {
            let (kind, taken) = if there.labels == spec.labels {
                (ErrorKind::AlreadyExists, "this name is taken")
            } else {
                (ErrorKind::Conflict, "this name is taken, by a volume with other labels")
            };
            return Err(Error::new(kind, Call::Volumes.operation(), taken).with_context("volume", id));
        }
        let volume = Volume { labels: spec.labels.clone(), created_at: self.wall(), entries: Vec::new() };
        self.volumes.insert(id.clone(), volume);
        Ok(id)
    }

    pub(crate) fn remove_volume(&mut self, id: &VolumeId) -> Result<Effect> {
        if let Some(user) = self.volume_user(id) {
            let used = Error::new(ErrorKind::Conflict, Call::Volumes.operation(), "an instance uses it");
            return Err(used.with_context("volume", id).with_context("instance", user));
        }
        Ok(if self.volumes.remove(id).is_some() { Effect::Changed } else { Effect::Unchanged })
    }

    fn volume_user(&self, id: &VolumeId) -> Option<&InstanceId> {
        let wanted = MountSource::Volume(id.clone());
        let user = self.records.values().find(|record| record.design.mounts.iter().any(|mount| mount.source == wanted));
        user.map(|record| &record.id)
    }

    pub(crate) fn list_volumes(&self) -> Vec<VolumeInfo> {
        self.volumes.iter().map(|(id, volume)| volume_info(id, volume)).collect()
    }

    pub(crate) fn volume(&self, id: &VolumeId, call: Call) -> Result<VolumeInfo> {
        let volume = self.volumes.get(id).ok_or_else(|| missing(id, call))?;
        Ok(volume_info(id, volume))
    }

    /// A whole archive.
    pub(crate) fn export_volume(&self, id: &VolumeId) -> Result<Bytes> {
        let volume = self.volumes.get(id).ok_or_else(|| missing(id, Call::Transfer))?;
        let size: usize = volume.entries.iter().map(Bytes::len).sum();
        let mut archive = BytesMut::with_capacity(size + 2 * BLOCK);
        volume.entries.iter().for_each(|entry| archive.extend_from_slice(entry));
        archive.resize(size + 2 * BLOCK, 0);
        Ok(archive.freeze())
    }

    /// All of the archive or nothing; an entry replaces one of the same path.
    pub(crate) fn import_volume(&mut self, id: &VolumeId, archive: &Bytes) -> Result<()> {
        let volume = self.volumes.get_mut(id).ok_or_else(|| missing(id, Call::Transfer))?;
        let entries = tar_entries(archive).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, Call::Transfer.operation(), "this is not a whole tar archive")
        })?;
        for entry in entries {
            volume.entries.retain(|old| path(old) != path(&entry));
            volume.entries.push(entry);
        }
        Ok(())
    }
}

fn volume_info(id: &VolumeId, volume: &Volume) -> VolumeInfo {
    let mut info = VolumeInfo::new(id.clone());
    info.driver = Some("memory".to_owned());
    info.labels = volume.labels.clone();
    info.created_at = Some(volume.created_at);
    info
}

fn missing(id: &VolumeId, call: Call) -> Error {
    Error::new(ErrorKind::NotFound, call.operation(), "there is no such volume").with_context("volume", id)
}

/// Everything of an entry that names it: for a long name, the header that carries it.
fn path(entry: &Bytes) -> Option<(&[u8], &[u8])> {
    if matches!(entry.get(156)?, b'x' | b'L') {
        return Some((entry.get(BLOCK..2 * BLOCK)?, &[]));
    }
    Some((entry.get(..100)?, entry.get(345..500)?))
}

/// The archive's entries, each with the headers that belong to it; `None` if it is not one, or breaks off.
fn tar_entries(archive: &Bytes) -> Option<Vec<Bytes>> {
    let mut entries = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < archive.len() {
        let header = archive.get(at..at + BLOCK)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(n, byte)| u64::from(if (148..156).contains(&n) { b' ' } else { *byte }))
            .sum();
        if octal(header.get(148..156)?)? != sum {
            return None;
        }
        let size = usize::try_from(octal(header.get(124..136)?)?).ok()?;
        at = at.checked_add(BLOCK)?.checked_add(size.checked_next_multiple_of(BLOCK)?)?;
        // A header for the next entry belongs to that.
        if !matches!(header.get(156)?, b'x' | b'g' | b'L' | b'K') {
            entries.push(archive.get(begin..at).map(|entry| archive.slice_ref(entry))?);
            begin = at;
        }
    }
    (begin == at).then_some(entries)
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[148..156].copy_from_slice(b"        ");
        block[156] = b'0';
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    #[test]
    fn an_archive_is_taken_apart_at_its_headers() {
        let archive = Bytes::from([entry("a", b"one"), entry("../b", &[7; 600]), vec![0; 1024]].concat());
        let entries = tar_entries(&archive).unwrap();
        assert_eq!(entries.iter().map(Bytes::len).collect::<Vec<_>>(), [1024, 1536]);
        assert_ne!(path(&entries[0]), path(&entries[1]));
    }

    #[test]
    fn a_truncated_or_invalid_archive_is_refused() {
        let archive = Bytes::from(entry("a", &[7; 600]));
        for cut in [1, 511, 513, 1024] {
            assert_eq!(tar_entries(&archive.slice(..cut)), None, "{cut}");
        }
        assert_eq!(tar_entries(&Bytes::from(vec![b'x'; 2048])), None);
        assert_eq!(tar_entries(&Bytes::new()), Some(vec![]));
    }
}
