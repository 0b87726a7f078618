//! [`Peered`]: any [`Contender`] as a [`Peer`].

use std::{cell::RefCell, fmt, sync::Arc};

use super::{
    contender::Contender,
    objects::Objects,
    turns,
    work::{Holder, Peer, Turn, Work, of_million},
};

/// A contender as a [`Peer`]. Holds the store of a million resources, once a workload has filled it, for the next workloads.
pub struct Peered<C>(RefCell<Option<Arc<C>>>);

impl<C: Contender> Peered<C> {
    /// A million resources of 512 bytes; a thousand in a trial.
    fn million() -> Objects {
        Objects { count: of_million(1_000_000), size: 512 }
    }

    fn filled(&self) -> Arc<C> {
        Arc::clone(self.0.borrow_mut().get_or_insert_with(|| Arc::new(turns::filled(Self::million()))))
    }
}

impl<C> Default for Peered<C> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<C> fmt::Debug for Peered<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peered").finish()
    }
}

impl<C: Contender> Peer for Peered<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn note(&self) -> &'static str {
        C::NOTE
    }

    fn turn(&self, work: Work) -> Option<Turn> {
        let part = of_million(C::PART);
        let small = Objects { count: of_million(100_000), ..Self::million() };
        Some(match work {
            Work::Fill => turns::fill::<C>(Self::million()),
            Work::Replace => turns::replace(self.filled(), Self::million(), part),
            Work::Get => turns::get(self.filled(), Self::million(), part),
            Work::List => turns::list(self.filled(), Self::million()),
            Work::ListAfterAdding => turns::list_after_adding(self.filled(), Self::million()),
            Work::TwoThreads => turns::two_threads(self.filled(), Self::million(), part),
            Work::Snapshot if C::SNAPSHOTS => turns::snapshot::<C>(small),
            Work::Restore if C::SNAPSHOTS => turns::restore::<C>(small),
            Work::Snapshot | Work::Restore => return None,
        })
    }

    fn clear(&self) {
        self.0.take();
    }

    fn fill(&self, count: usize, size: usize) -> Box<dyn Holder> {
        turns::holder::<C>(Objects { count, size })
    }
}
