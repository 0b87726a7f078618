//! [`Work`]: the main process, which works with the sidecar.

use runtide_core::{
    ImageRef, Instance, Labels, RuntimeBackendExt,
    manager::{AttachOptions, ConnectOptions, ExecOptions, ExecSession, InstanceSpec, Sidecar},
};
use runtide_examples::{Stop, follow, note};
use runtide_journal::{Operation, Sidecars, Stage, Undo, UndoAction};

use tokio::sync::mpsc::Receiver;

use crate::{interrupted, say};

/// The work, as an operation of the sidecar's own log: each thing that it makes is announced with what undoes it.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    sidecars: &'a Sidecars,
    sidecar: &'a Sidecar,
    argv: Vec<String>,
    operation: Operation,
}

impl<'a> Work<'a> {
    pub(crate) async fn begin(sidecars: &'a Sidecars, sidecar: &'a Sidecar, argv: Vec<String>) -> Result<Self, Stop> {
        let mut operation = sidecars.log().submit("example.work", &argv).await?;
        operation.enter(Stage::Validated).await?;
        operation.enter(Stage::Started).await?;
        Ok(Self { sidecars, sidecar, argv, operation })
    }

    /// Runs it as the main process of a new instance in the sidecar's network.
    pub(crate) async fn in_new(
        &mut self,
        name: &str,
        image: &ImageRef,
        interrupts: &mut Receiver<()>,
    ) -> Result<(), Stop> {
        let backend = self.sidecars.inner();
        let provision = backend.provision().ok_or_else(|| backend.unsupported("provision_create"))?;
        let exec = backend.exec().ok_or_else(|| backend.unsupported("exec_attach"))?;
        say(format_args!("main      {name}: {}", self.argv.join(" ")))?;
        let labels = self.operation.log().labels(self.operation.id());
        let spec = InstanceSpec::of_image(image.clone())
            .with_name(name)
            .with_entrypoint(self.argv.first())
            .with_command(self.argv.iter().skip(1))
            .with_networks(self.sidecar.network.clone())
            .with_labels(labels.into_iter().collect::<Labels>());
        let undo = Undo::new(backend.id().clone(), UndoAction::RemoveInstance, name).made_by(self.operation.id());
        self.operation.will(undo).await?;
        let id = provision.create(&spec).await?;
        until_interrupted(exec.start_attached(&id, AttachOptions::default()), interrupts).await
    }

    /// Runs it in an instance that is there, which joins the sidecar's network.
    pub(crate) async fn beside(&mut self, instance: &Instance, interrupts: &mut Receiver<()>) -> Result<(), Stop> {
        let backend = self.sidecars.inner();
        let networks = backend.networks().ok_or_else(|| backend.unsupported("networks_connect"))?;
        let exec = backend.exec().ok_or_else(|| backend.unsupported("exec_run"))?;
        say(format_args!("beside    {}: {}", instance.name, self.argv.join(" ")))?;
        if let Some(network) = &self.sidecar.network
            // One that has been in it before stays in it.
            && !networks.inspect(network).await?.members.contains(&instance.id)
        {
            let leave = UndoAction::Disconnect(network.clone());
            self.operation.will(Undo::new(backend.id().clone(), leave, instance.name.as_str())).await?;
            networks.connect(network, &instance.id, ConnectOptions::default()).await?;
        }
        until_interrupted(exec.exec(&instance.id, ExecOptions::default().with_argv(self.argv.clone())), interrupts)
            .await
    }

    pub(crate) async fn undo(self) -> Result<(), Stop> {
        let undone = self.operation.roll_back(std::slice::from_ref(self.sidecars.inner())).await?;
        if let Some(obstacle) = undone.obstacle {
            note(format_args!("not undone yet: {obstacle}"));
        }
        Ok(())
    }
}

/// Shows the process to its end. It alone is interrupted: what creates something is not, so that it is known and undone.
async fn until_interrupted(
    session: impl Future<Output = runtide_core::Result<ExecSession>>,
    interrupts: &mut Receiver<()>,
) -> Result<(), Stop> {
    tokio::select! {
        end = async { follow(session.await?, None).await } => end,
        Some(()) = interrupts.recv() => interrupted(),
    }
}
