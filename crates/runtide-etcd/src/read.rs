//! Gets, lists and counts. All reads are linearizable: they show every write that was acknowledged before they began.

use std::sync::{Arc, atomic::Ordering};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Page, PageOptions, Resource, ResourceFormat, ResourceRef, Revision, Selector, StoreStats},
};
use tonic::Status;

use crate::{
    call::Call,
    client::positive,
    error::Recovery,
    keys::{self, KeyRange},
    known::Seen,
    shared::Shared,
    token::Token,
    value,
    view::{View, signed},
    wire::{KeyValue, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest},
};

const LIST: &str = "etcd.list";
const STATS: &str = "etcd.stats";

/// Resources in a page by default, and at most.
pub(crate) const PAGE: u32 = 1000;

/// Keys of a range, up to a limit, at one revision.
pub(crate) struct Part {
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) more: bool,
    pub(crate) revision: u64,
    /// The pointer at that revision.
    pub(crate) pointer: Option<KeyValue>,
}

/// Failure to read a range at a revision.
pub(crate) enum ReadError {
    /// The revision is compacted.
    Compacted(Error),
    /// The cluster has not reached the revision.
    Future(Error),
    /// Any other failure.
    Failed(Error),
}

impl From<ReadError> for Error {
    fn from(unread: ReadError) -> Self {
        match unread {
            ReadError::Compacted(error) | ReadError::Future(error) | ReadError::Failed(error) => error,
        }
    }
}

impl Shared {
    pub(crate) async fn get(
        &self,
        reference: &ResourceRef,
        format: Option<ResourceFormat>,
    ) -> Result<Option<Arc<Resource>>> {
        let mut call = Call::new("etcd.get", self.request_timeout);
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(&mut call).await?;
            let get = view.generation.iter().map(|name| RequestOp::get(self.keys.resource(name, reference)));
            let get: Vec<RequestOp> = get.collect();
            let txn = TxnRequest::when([self.is_live(&view)]).and_then(get).or_else([self.get_pointer()]);
            let mut answer = self.client.txn(&mut call, txn).await?;
            if !answer.succeeded {
                self.update_view(answer.one())?;
                continue;
            }
            let Some(kv) = answer.one() else {
                self.known.set(reference, None);
                return Ok(None);
            };
            let resource = Arc::new(self.decode(reference.clone(), kv)?);
            self.known.set(reference, Some(Seen::new(resource.revision.0, &resource.document)));
            return match format {
                None => Ok(Some(resource)),
                Some(format) => resource.convert(format).map(Some),
            };
        }
    }

    pub(crate) async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        let mut call = Call::new(LIST, self.request_timeout);
        let limit = options.limit.map_or(PAGE, |limit| limit.get().min(PAGE));
        let token = match &options.after {
            None => None,
            Some(text) => Some(Token::parse(text).ok_or_else(|| self.foreign())?),
        };
        let (generation, part) = match token {
            Some(token) => {
                let mut range = self.keys.selected(&token.generation, selector);
                let behind = keys::after(format!("{}{}", self.root(&token.generation), token.last).as_bytes());
                range.from = range.from.max(behind);
                let part = match self.part(&mut call, &range, token.revision, limit).await {
                    Err(ReadError::Future(_)) => return Err(self.foreign()),
                    part => part?,
                };
                // A token of this store names the generation that was live at its revision.
                match View::of(self.client.name(), part.pointer.clone())?.generation {
                    Some(generation) if *generation == *token.generation => (token.generation, part),
                    _ => return Err(self.foreign()),
                }
            }
            None => match self.first_part(&mut call, selector, limit).await? {
                (Some(generation), part) => (generation.to_string(), part),
                (None, part) => return Ok(Page::new(Vec::new(), Revision(part.revision), None)),
            },
        };
        let last = part.kvs.last().filter(|_| part.more).and_then(|kv| self.keys.parse(&kv.key));
        let next = last.map(|(_, last)| {
            let last = last.to_owned();
            Token { revision: part.revision, generation: generation.clone(), last }.text()
        });
        let mut items = Vec::with_capacity(part.kvs.len());
        for kv in part.kvs {
            let resource = Arc::new(self.resource(kv)?);
            if selector.matches(&resource) {
                items.push(resource.shown(options.format));
            }
        }
        Ok(Page::new(items, Revision(part.revision), next))
    }

    /// First page of a listing, and the generation that was live then.
    pub(crate) async fn first_part(
        &self,
        call: &mut Call,
        selector: &Selector,
        limit: u32,
    ) -> Result<(Option<Arc<str>>, Part)> {
        let mut limit = limit;
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(call).await?;
            let get = view.generation.iter().map(|name| get(&self.keys.selected(name, selector), None, limit));
            let get: Vec<RequestOp> = get.collect();
            let txn = TxnRequest::when([self.is_live(&view)]).and_then(get).or_else([self.get_pointer()]);
            let mut answer = match self.client.try_txn(call, txn).await {
                Ok(answer) => answer,
                Err(fault) if fault.recovery == Recovery::SmallerPage && limit > 1 => {
                    limit /= 2;
                    continue;
                }
                Err(fault) => return Err(fault.error),
            };
            if !answer.succeeded {
                self.update_view(answer.one())?;
                continue;
            }
            let revision = answer.revision;
            let range = answer.range();
            return Ok((view.generation, Part { kvs: range.kvs, more: range.more, revision, pointer: None }));
        }
    }

    /// Reads a range at a revision; fewer keys than the limit, if their values are large.
    pub(crate) async fn part(
        &self,
        call: &mut Call,
        range: &KeyRange,
        revision: u64,
        limit: u32,
    ) -> Result<Part, ReadError> {
        let mut limit = limit;
        loop {
            let mut gets = vec![RangeRequest::key(self.keys.pointer()).at(signed(revision)).into()];
            // A range that is empty begins behind the selection: there is nothing to read.
            if range.from < range.to {
                gets.push(get(range, Some(revision), limit));
            }
            match self.client.try_txn(call, TxnRequest::of(gets)).await {
                Ok(mut answer) => {
                    let pointer = answer.one();
                    let range = answer.range();
                    return Ok(Part { kvs: range.kvs, more: range.more, revision, pointer });
                }
                Err(fault) if fault.recovery == Recovery::SmallerPage && limit > 1 => limit /= 2,
                Err(fault) if fault.recovery == Recovery::Compacted => return Err(ReadError::Compacted(fault.error)),
                Err(fault) if fault.recovery == Recovery::FutureRevision => return Err(ReadError::Future(fault.error)),
                Err(fault) => return Err(ReadError::Failed(fault.error)),
            }
        }
    }

    fn foreign(&self) -> Error {
        Error::new(ErrorKind::InvalidInput, LIST, "this page token is not of this store")
            .with_context("store", self.client.name())
    }

    fn root(&self, generation: &str) -> String {
        String::from_utf8(self.keys.generation(generation).from).unwrap_or_default()
    }

    pub(crate) async fn stats(&self) -> Result<StoreStats> {
        let mut call = Call::new(STATS, self.request_timeout);
        let (count, restored, revision) = self.count(&mut call).await?;
        // No revision before a restore can be watched from.
        let oldest = self.oldest(&mut call).await?.max(restored);
        let subscribers = self.subscribers.load(Ordering::Relaxed);
        Ok(StoreStats::new(count, subscribers, Revision(revision), Revision(oldest.min(revision))))
    }

    /// Number of resources, revision of the last restore (0: none), and the revision at which both were read.
    async fn count(&self, call: &mut Call) -> Result<(u64, u64, u64)> {
        loop {
            if call.left().is_zero() {
                return Err(call.outrun());
            }
            let view = self.view(call).await?;
            let get = view.generation.iter().map(|name| {
                let KeyRange { from, to } = self.keys.generation(name);
                RangeRequest::between(from, to).count_only().into()
            });
            let get: Vec<RequestOp> = std::iter::once(self.get_pointer()).chain(get).collect();
            let txn = TxnRequest::when([self.is_live(&view)]).and_then(get).or_else([self.get_pointer()]);
            let mut answer = self.client.txn(call, txn).await?;
            let (revision, pointer) = (answer.revision, answer.one());
            if answer.succeeded {
                // The first write creates the pointer, and only a restore writes it again.
                let restored = pointer.filter(|pointer| pointer.version > 1);
                let restored = restored.map_or(0, |pointer| positive(pointer.mod_revision));
                return Ok((positive(answer.range().count), restored, revision));
            }
            self.update_view(pointer)?;
        }
    }

    /// Oldest revision that can be read. No call of etcd's returns it; a watch that begins before it is cancelled with it.
    async fn oldest(&self, call: &mut Call) -> Result<u64> {
        let known = self.oldest.load(Ordering::Relaxed).max(1);
        let txn = TxnRequest::of([RangeRequest::key(self.keys.pointer()).at(signed(known)).into()]);
        match self.client.try_txn(call, txn).await {
            Ok(_) => return Ok(known),
            Err(fault) if fault.recovery == Recovery::Compacted => {}
            Err(fault) => return Err(fault.error),
        }
        let key = self.keys.pointer();
        let found = self.client.with_retries(call, |connection| {
            let create = WatchCreateRequest { key: key.clone(), start_revision: signed(known), ..Default::default() };
            async move {
                let mut watch = connection.watch(&create).await?;
                while let Some(message) = watch.message().await? {
                    if message.compact_revision > 0 {
                        return Ok(positive(message.compact_revision));
                    }
                }
                Err(Status::unavailable("the member closed the watch"))
            }
        });
        let found = found.await.map_err(|fault| fault.error)?;
        self.oldest.fetch_max(found, Ordering::Relaxed);
        Ok(found)
    }

    /// Resource in a key of the live generation.
    pub(crate) fn resource(&self, kv: KeyValue) -> Result<Resource> {
        let reference = self.keys.parse(&kv.key).and_then(|(_, reference)| reference.parse().ok());
        let reference = reference.ok_or_else(|| self.corrupt(&kv.key, "its key names no resource"))?;
        self.decode(reference, kv)
    }

    fn decode(&self, reference: ResourceRef, kv: KeyValue) -> Result<Resource> {
        let revision = Revision(positive(kv.mod_revision));
        let (document, _) = value::decode(kv.value).map_err(|why| self.corrupt(&kv.key, why))?;
        Ok(Resource::new(reference, document, revision))
    }

    pub(crate) fn corrupt(&self, key: &[u8], why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, "etcd.decode", format!("a value is not one of this store's: {why}"))
            .with_context("store", self.client.name())
            .with_context("key", String::from_utf8_lossy(key))
    }
}

fn get(range: &KeyRange, revision: Option<u64>, limit: u32) -> RequestOp {
    let range = RangeRequest::between(range.from.clone(), range.to.clone()).limit(i64::from(limit));
    range.at(revision.map_or(0, signed)).into()
}
