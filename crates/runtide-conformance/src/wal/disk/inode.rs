//! One file: what programs see of it, and what of it may be on the disk.

use std::collections::BTreeMap;

/// What is written without a sync is kept or lost in pieces of this many bytes.
pub(super) const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What programs see.
    now: Vec<u8>,
    /// What is surely on the disk.
    durable: Vec<u8>,
    /// Sectors of which the disk may have something else.
    sectors: BTreeMap<usize, Sector>,
    /// The sizes that the file had since its size was last durable.
    sizes: Vec<usize>,
}

/// The disk has one of these, or what was durable before.
#[derive(Clone, Debug, Default)]
struct Sector {
    versions: Vec<Vec<u8>>,
    /// Whether the next sync writes it: not after a sync that failed, unless it is written again.
    dirty: bool,
}

/// What of a file only a power cut decides.
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
        if let Some(place) = self.now.get_mut(at..end) {
            place.copy_from_slice(bytes);
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
            // If it grows again, what was cut off reads as zeros.
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

    /// The system forgets that anything is to be written, as Linux does with the pages of a failed write-back, and goes on
    /// to show it. The file's size is the file system's own business, and is not forgotten.
    pub(super) fn fail_to_sync(&mut self) {
        self.sectors.values_mut().for_each(|sector| sector.dirty = false);
    }

    /// What is in doubt, and how many ways there are beside what is surely there.
    pub(super) fn doubts(&self) -> impl Iterator<Item = (Part, usize)> {
        let size = (!self.sizes.is_empty()).then_some((Part::Size, self.sizes.len()));
        let sectors = self.sectors.iter().filter(|(_, sector)| !sector.versions.is_empty());
        sectors.map(|(index, sector)| (Part::Sector(*index), sector.versions.len())).chain(size)
    }

    /// The file after a power cut: of each part in doubt the way that was picked, 0 for what is surely there.
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

/// As much of a sector as lies in the file.
fn put(bytes: &mut [u8], index: usize, sector: &[u8]) {
    let place = bytes.get_mut(index * SECTOR..).unwrap_or_default();
    place.iter_mut().zip(sector).for_each(|(to, from)| *to = *from);
}
