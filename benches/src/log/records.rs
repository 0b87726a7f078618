//! The logged records: 256 bytes each, a few thousand in rotation, each different from the next.

/// Size of a record in bytes.
pub const RECORD: usize = 256;

/// Number of different records: 1 MiB of them, so that they do not all come from the nearest cache.
const DIFFERENT: usize = 4_096;

/// Records in rotation.
#[derive(Debug)]
pub struct Records(Vec<u8>);

impl Default for Records {
    fn default() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(DIFFERENT * RECORD);
        for n in 0..DIFFERENT {
            // The number first, so that a reader notices a missing record; then incompressible bytes.
            bytes.extend_from_slice(&(n as u64).to_le_bytes());
            while bytes.len() % RECORD != 0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend_from_slice(&state.to_le_bytes());
            }
        }
        Self(bytes)
    }
}

impl Records {
    /// Record number `n`.
    pub fn get(&self, n: usize) -> &[u8] {
        let at = (n % DIFFERENT) * RECORD;
        &self.0[at..at + RECORD]
    }

    /// The first `count` records, from number 0.
    pub fn take(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        (0..count).map(|n| self.get(n))
    }
}

/// The records that a reader has seen. It reads each one, as a replay does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Number of records so far.
    pub count: u64,
    sum: u64,
}

impl Seen {
    /// Takes the next record, which must have the next number.
    #[inline]
    pub fn record(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_first_chunk::<8>().expect("256 bytes");
        assert_eq!(rest.len(), RECORD - 8);
        self.number(u64::from_le_bytes(*head));
    }

    /// Takes the next record by its number alone, counted from 0.
    #[inline]
    pub fn number(&mut self, number: u64) {
        assert_eq!(number % DIFFERENT as u64, self.count % DIFFERENT as u64, "out of order");
        self.sum = self.sum.wrapping_add(number);
        self.count += 1;
    }

    /// Asserts the number of records.
    pub fn were(self, count: usize) {
        assert_eq!(self.count, count as u64);
        std::hint::black_box(self.sum);
    }
}
