//! A folder is the runtime, each file in it an instance, and its text the state (`running`, `stopped 0`).
//!
//! The backend only lists and inspects. Changes, outages, and any number of watchers are the driver's. For a backend that
//! passes the conformance suite, fork `runtide-template`; this one shows the least that is needed.
#![expect(clippy::wildcard_imports, reason = "the vocabulary is what this file is about")]

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{capabilities::*, event::*, watch::*, *};

/// The path and the id of the folder: the counterpart of a daemon's client.
#[derive(Clone, Debug)]
struct Folder(PathBuf, BackendId);

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "folder.read", "the folder or a file in it cannot be read").with_source(error)
}

impl Folder {
    /// Three outcomes, never two: present, absent (`None`), and an inspection that failed, which changes nothing.
    fn read(&self, id: &InstanceId) -> Result<Option<Arc<Instance>>> {
        let text = match fs::read_to_string(self.0.join(id.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed)?,
        };
        let mut words = text.split_whitespace();
        // An empty file is about to be written.
        let word = words.next().ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        let state = serde_json::from_value(word.into()).unwrap_or(InstanceState::Unknown); // total: any word has a state
        let mut instance = Instance::new(self.1.clone(), id.clone(), id.as_str(), InstanceKind::Service, state);
        instance.exit = words.next().and_then(|code| code.parse().ok()).map(ExitStatus::code);
        Ok(Some(Arc::new(instance)))
    }
}

#[async_trait]
impl Inspector for Folder {
    async fn list(&self, _: Detail) -> Result<Listing> {
        let (mut present, mut failures) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            // A name that is no text has no id here: it makes the listing partial, and is not left out in silence.
            let name = entry.map_err(failed)?.file_name().into_string();
            let name =
                name.map_err(|name| failed(io::ErrorKind::InvalidFilename.into()).with_context("file", name.display()));
            match name.and_then(|name| self.read(&name.into())) {
                Ok(found) => present.extend(found),
                Err(error) => failures.push(Failure::from(&error)),
            }
        }
        Ok(Listing::new(present, failures))
    }

    async fn inspect(&self, ids: &[InstanceId], _: Detail) -> Result<Vec<Inspection>> {
        let inspect = |id: &InstanceId| match self.read(id) {
            Ok(Some(instance)) => Inspection::Present(instance),
            Ok(None) => Inspection::Absent(id.clone()),
            Err(error) => Inspection::Unknown { id: id.clone(), cause: Failure::from(&error) },
        };
        Ok(ids.iter().map(inspect).collect())
    }
}

#[rustfmt::skip] // one answer, one line
#[async_trait]
impl Source for Folder {
    // A folder has no history to resume from.
    async fn open(&mut self, _: Option<&ResumeToken>) -> Result<Opened> { Ok(Opened::Fresh(Gap::Initial)) }
    fn inspector(&self) -> Arc<dyn Inspector> { Arc::new(self.clone()) }
    fn max_silence(&self) -> Option<Duration> { None }
    fn reports_edges(&self) -> bool { false }

    // A folder reports no events, so it is polled; the driver compares.
    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        out.push(Signal::new(SignalBody::Full(self.list(Detail::Summary).await?)));
        Ok(Flow::Open)
    }
}

/// The backend: the driver over the folder.
#[derive(Debug)]
pub(crate) struct FolderBackend {
    folder: Folder,
    driver: Driver,
}

impl FolderBackend {
    pub(crate) fn new(path: PathBuf) -> Self {
        let folder = Folder(path, BackendId::from("folder:demo"));
        let source = folder.clone();
        let driver = Driver::new(folder.1.clone(), DriverOptions::default(), move || source.clone());
        Self { folder, driver }
    }
}

#[rustfmt::skip] // one answer, one line
#[async_trait]
impl RuntimeBackend for FolderBackend {
    fn id(&self) -> &BackendId { &self.folder.1 }
    fn kind(&self) -> RuntimeKind { RuntimeKind::Custom("folder".into()) }
    async fn watch(&self, options: WatchOptions) -> Result<EventStream> { self.driver.watch(options) }
    // A complete backend also answers every later call with `Cancelled`.
    async fn close(&self) -> Result<()> { self.driver.close().await; Ok(()) }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::none("a folder can only be listed");
        can.watch = WatchSupport::Polled;
        can
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let endpoint = self.folder.0.to_string_lossy();
        fs::read_dir(&self.folder.0).map_err(|error| failed(error).with_context("path", &endpoint))?;
        Ok(RuntimeInfo::new(self.id().clone(), self.kind(), "1", endpoint, self.capabilities()))
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        let mut listing = self.folder.list(options.detail).await?;
        listing.instances.retain(|instance| options.filter.matches(instance));
        Ok(listing)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        self.folder.read(id)?.ok_or_else(|| Error::new(ErrorKind::NotFound, "folder.inspect", "there is no such file"))
    }
}
