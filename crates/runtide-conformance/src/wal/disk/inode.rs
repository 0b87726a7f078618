//! One file: its bytes as programs see them, and its bytes that may be on the disk.

use std::collections::BTreeMap;

/// Bytes of a sector: an unsynced write is kept or lost in pieces of this size.
pub(super) const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// The bytes that programs see.
    now: Vec<u8>,
    /// The bytes that are surely on the disk.
    durable: Vec<u8>,
    /// Sectors whose bytes on the disk may differ from the durable ones.
    sectors: BTreeMap<usize, Sector>,
    /// The sizes that the file had since its size was last durable.
    sizes: Vec<usize>,
}

/// A sector in doubt: the disk has one of these versions, or the durable bytes.
#[derive(Clone, Debug, Default)]
struct Sector {
    versions: Vec<Vec<u8>>,
    /// `true` if the next sync writes it: not after a sync that failed, unless it is written again.
    dirty: bool,
}

/// A part of a file that only a power cut decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Sector(usize),
    Size,
}

impl Inode {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), durable: bytes, sectors: BTreeMap::new(), sizes: Vec::new() }
    }

    pub(super) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len());
        if self.now.len() < end {
            self.now.resize(end, 0);
            self.resized();
        }
        if let Some(range) = self.now.get_mut(at..end) {
            range.copy_from_slice(bytes);
        }
        if at < end {
            self.changed(at / SECTOR..=(end - 1) / SECTOR);
        }
    }

    pub(super) fn resize(&mut self, len: usize) {
        let before = self.now.len();
        self.now.resize(len, 0);
        self.resized();
        if len < before {
            // If it grows again, the bytes that were cut off read as zeros.
            self.changed(len / SECTOR..=(before - 1) / SECTOR);
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        self.sizes.clear();
        let durable = &mut self.durable;
        self.sectors.retain(|index, sector| {
            if let Some(last) = sector.versions.last().filter(|_| sector.dirty) {
                put(durable, *index, last);
            }
            !sector.dirty
        });
    }

    /// The system drops the sectors that it was to write, as Linux does with the pages of a failed write-back, and goes on
    /// showing them. The file's size is kept by the file system, and is not dropped.
    pub(super) fn fail_to_sync(&mut self) {
        self.sectors.values_mut().for_each(|sector| sector.dirty = false);
    }

    /// The parts in doubt, each with the number of its states in addition to the durable one.
    pub(super) fn doubts(&self) -> impl Iterator<Item = (Part, usize)> {
        let size = (!self.sizes.is_empty()).then_some((Part::Size, self.sizes.len()));
        let sectors = self.sectors.iter().filter(|(_, sector)| !sector.versions.is_empty());
        sectors.map(|(index, sector)| (Part::Sector(*index), sector.versions.len())).chain(size)
    }

    /// The file after a power cut: of each part in doubt the state that was picked, 0 for the durable one.
    pub(super) fn after(&self, picks: impl IntoIterator<Item = (Part, usize)>) -> Self {
        let mut bytes = self.durable.clone();
        let mut size = bytes.len();
        for (part, pick) in picks {
            let Some(pick) = pick.checked_sub(1) else { continue };
            match part {
                Part::Size => size = self.sizes.get(pick).copied().unwrap_or(size),
                Part::Sector(index) => {
                    if let Some(version) = self.sectors.get(&index).and_then(|sector| sector.versions.get(pick)) {
                        bytes.resize(bytes.len().max((index + 1) * SECTOR), 0);
                        put(&mut bytes, index, version);
                    }
                }
            }
        }
        bytes.resize(size, 0);
        Self::new(bytes)
    }

    fn resized(&mut self) {
        let last = self.sizes.last().copied().unwrap_or(self.durable.len());
        if last != self.now.len() {
            self.sizes.push(self.now.len());
        }
    }

    fn changed(&mut self, indexes: std::ops::RangeInclusive<usize>) {
        for index in indexes {
            let shown = sector(&self.now, index);
            let known = self.sectors.get(&index).and_then(|sector| sector.versions.last());
            let same = known.map_or_else(|| sector(&self.durable, index) == shown, |last| *last == shown);
            if same && known.is_none() {
                continue;
            }
            let entry = self.sectors.entry(index).or_default();
            entry.dirty = true;
            if !same {
                entry.versions.push(shown);
            }
        }
    }
}

/// A sector of a file; behind the file's end there are zeros.
fn sector(bytes: &[u8], index: usize) -> Vec<u8> {
    let start = (index * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    let mut sector = bytes.get(start..end).unwrap_or_default().to_vec();
    sector.resize(SECTOR, 0);
    sector
}

/// Writes as much of a sector as is within the file.
fn put(bytes: &mut [u8], index: usize, sector: &[u8]) {
    let target = bytes.get_mut(index * SECTOR..).unwrap_or_default();
    target.iter_mut().zip(sector).for_each(|(to, from)| *to = *from);
}
