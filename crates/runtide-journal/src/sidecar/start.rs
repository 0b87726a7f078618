//! The steps of a start. Each is announced in the log before it acts.

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ready, sidecars::Sidecars, spec};
use crate::{Operation, Stage, Undo, UndoAction};
use runtide_core::{
    Error, ErrorKind, ImageRef, InstanceId, Labels, Result, RuntimeBackendExt,
    manager::{
        ImageManager, ImageProgress, InstanceSpec, NetworkId, NetworkSpec, OperationId, PullOptions, Sidecar,
        SidecarSpec,
    },
};

const START: &str = "sidecar.start";

/// Attempts to make an image or a network that another operation removes between our listing and our use of it.
const ATTEMPTS: usize = 3;

/// Starts the sidecar, or removes every object that the start made.
pub(super) async fn start(sidecars: &Sidecars, spec: &SidecarSpec, dropped: &CancellationToken) -> Result<Sidecar> {
    let deadline = Instant::now() + spec.deadline;
    let network = spec.network.as_ref().map(|network| &network.name);
    // Names only: an environment may hold a secret.
    let request = json!({ "name": spec.instance.name, "image": spec.instance.image, "network": network });
    let operation = sidecars.log.submit(START, &request).await?;
    let id = operation.id().clone();
    let mut starting = Starting { sidecars, spec, dropped, deadline, operation };
    let error = match starting.run().await {
        Ok((instance, network)) => return Ok(Sidecar::new(instance, network, id)),
        Err(error) => error.with_context("backend", sidecars.backend.id()).with_context("operation", &id),
    };
    let backends = [sidecars.backend.clone()];
    match starting.operation.fail(&error, &backends).await {
        Ok(record) => Err(match &record.obstacle {
            None => error,
            Some(obstacle) => error.with_context("pending", record.pending.len()).with_context("obstacle", obstacle),
        }),
        Err(unwritten) => {
            tracing::warn!(operation = %id, error = %unwritten, "the log cannot be written");
            Err(error)
        }
    }
}

struct Starting<'a> {
    sidecars: &'a Sidecars,
    spec: &'a SidecarSpec,
    dropped: &'a CancellationToken,
    deadline: Instant,
    operation: Operation,
}

impl Starting<'_> {
    async fn run(&mut self) -> Result<(InstanceId, Option<NetworkId>)> {
        let backend = &self.sidecars.backend;
        spec::check(self.spec, &**backend)?;
        self.operation.enter(Stage::Validated).await?;
        self.operation.enter(Stage::Started).await?;
        let (instance, network) = self.make().await?;
        self.go_on()?;
        let lifecycle = backend.lifecycle().ok_or_else(|| backend.unsupported("lifecycle_start"))?;
        lifecycle.start(&instance).await?;
        let ready = tokio::time::timeout_at(self.deadline, ready::wait(&**backend, &instance, &self.spec.ready));
        tokio::select! {
            biased;
            () = self.dropped.cancelled() => return Err(given_up()),
            ready = ready => ready.unwrap_or_else(|_| Err(self.late()))?,
        }
        self.go_on()?;
        self.operation.enter(Stage::Completed).await?;
        Ok((instance, network))
    }

    /// Makes the network, the image and the instance, in this order.
    async fn make(&mut self) -> Result<(InstanceId, Option<NetworkId>)> {
        let backend = self.sidecars.backend.clone();
        let provision = backend.provision().ok_or_else(|| backend.unsupported("provision_create"))?;
        let name = spec::name(self.spec, self.operation.id());
        let mut announced = false;
        for attempt in 1.. {
            let network = match &self.spec.network {
                Some(network) => Some(self.ensure_network(network).await?),
                None => None,
            };
            if let Some(image) = &self.spec.instance.image {
                self.ensure_image(image).await?;
            }
            self.go_on()?;
            if !announced {
                self.will(UndoAction::RemoveInstance, &name, true).await?;
                announced = true;
            }
            let whole = self.instance_spec(&name, network.as_ref());
            match provision.create(&whole).await {
                Ok(instance) => return Ok((instance, network)),
                // Another operation had made the object, and has removed it since.
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unexpected, START, "no attempt was made"))
    }

    async fn ensure_network(&mut self, spec: &NetworkSpec) -> Result<NetworkId> {
        let backend = self.sidecars.backend.clone();
        let networks = backend.networks().ok_or_else(|| backend.unsupported("networks_manage"))?;
        for attempt in 1.. {
            self.go_on()?;
            if let Some(there) = networks.list().await?.into_iter().find(|network| network.name == spec.name) {
                return Ok(there.id);
            }
            self.go_on()?;
            self.will(UndoAction::RemoveNetwork, &spec.name, true).await?;
            let mut spec = spec.clone();
            spec.labels = self.labelled(&spec.labels);
            match networks.create(&spec).await {
                // Another operation was faster and owns the network.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < ATTEMPTS => {}
                made => return made,
            }
        }
        Err(Error::new(ErrorKind::Unexpected, START, "no attempt was made"))
    }

    async fn ensure_image(&mut self, image: &ImageRef) -> Result<()> {
        let backend = self.sidecars.backend.clone();
        let images = backend.images().ok_or_else(|| backend.unsupported("images_manage"))?;
        self.go_on()?;
        if images.exists(image).await? {
            return Ok(());
        }
        self.go_on()?;
        self.will(UndoAction::RemoveImage, image.as_str(), false).await?;
        // A pull can take long; an abandoned one leaves no image.
        let pulled = tokio::time::timeout_at(self.deadline, pull(images, image));
        tokio::select! {
            biased;
            () = self.dropped.cancelled() => Err(given_up()),
            pulled = pulled => pulled.unwrap_or_else(|_| Err(self.late())),
        }
    }

    fn instance_spec(&self, name: &str, network: Option<&NetworkId>) -> InstanceSpec {
        let mut spec = self.spec.instance.clone();
        spec.name = Some(name.to_owned());
        spec.labels = self.labelled(&spec.labels);
        let joined = |network: &&NetworkId| spec.networks.iter().any(|attachment| attachment.network == **network);
        if let Some(network) = network.filter(|network| !joined(network)) {
            spec.networks.push(network.clone().into());
        }
        spec
    }

    fn labelled(&self, labels: &Labels) -> Labels {
        let mut labels = labels.clone();
        for (key, value) in self.sidecars.log.labels(self.operation.id()) {
            labels.insert(key, value);
        }
        labels
    }

    async fn will(&mut self, action: UndoAction, name: &str, labelled: bool) -> Result<()> {
        let undo = Undo::new(self.sidecars.backend.id().clone(), action, name);
        let id: OperationId = self.operation.id().clone();
        let undo = if labelled { undo.made_by(&id) } else { undo };
        self.operation.will(undo).await.map(drop)
    }

    /// Checks between two steps that the caller still waits and that the deadline has not passed.
    fn go_on(&self) -> Result<()> {
        if self.dropped.is_cancelled() {
            Err(given_up())
        } else if Instant::now() >= self.deadline {
            Err(self.late())
        } else {
            Ok(())
        }
    }

    fn late(&self) -> Error {
        Error::new(ErrorKind::Timeout, START, format!("not ready within {:?}", self.spec.deadline))
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Cancelled, START, "the caller gave it up")
}

async fn pull(images: &dyn ImageManager, image: &ImageRef) -> Result<()> {
    let mut progress = images.pull(image, PullOptions::default()).await?;
    let mut done = false;
    while let Some(step) = progress.next().await {
        done |= matches!(step?, ImageProgress::Done(_));
    }
    if done {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Protocol, START, "the pull ended without a result").with_context("image", image))
}
