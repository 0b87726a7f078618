//! [`Undoing`]: the log of what this program makes, and the end of all of it.

use std::{
    collections::HashSet,
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use runtide_core::{RuntimeBackend, manager::OperationId};
use runtide_examples::{Stop, note};
use runtide_journal::{JournalOptions, OperationLog, OwnerId, Undo, UndoAction};

/// Pause between two checks of a start that was given up: it finishes its present step.
const PAUSE: Duration = Duration::from_millis(50);

/// The operation log in a folder, on one backend.
#[derive(Debug)]
pub(crate) struct Undoing {
    backend: Arc<dyn RuntimeBackend>,
    owner: OwnerId,
    dir: PathBuf,
    log: OperationLog,
}

impl Undoing {
    /// Opens the log, and undoes what an earlier run left that was killed.
    pub(crate) async fn open(folder: &Path, backend: Arc<dyn RuntimeBackend>) -> Result<Self, Stop> {
        let owner = owner(folder).map_err(|error| Stop::refused(format_args!("{}: {error}", folder.display())))?;
        let dir = folder.join("operations");
        let earlier = Self { log: open(&dir, &owner)?, backend, owner, dir };
        let undone = earlier.finish().await?;
        if !undone.is_empty() {
            note(format_args!("undone, of an earlier run that was killed: {}", undone.join(", ")));
        }
        Ok(Self { log: open(&earlier.dir, &earlier.owner)?, ..earlier })
    }

    pub(crate) fn log(&self) -> &OperationLog {
        &self.log
    }

    /// Undoes every operation in flight, then what carries the labels of this log's owner, and returns their names. Other
    /// operations end only in `Completed`, so that all that the owner made is gone.
    pub(crate) async fn finish(&self) -> Result<Vec<String>, Stop> {
        let (mut undone, mut stuck) = (Vec::new(), HashSet::<OperationId>::new());
        while self.log.in_flight().iter().any(|operation| !stuck.contains(&operation.id)) {
            for record in self.log.recover(std::slice::from_ref(&self.backend)).await? {
                undone.extend(record.undone.iter().map(named));
                if let Some(obstacle) = &record.obstacle
                    && stuck.insert(record.id.clone())
                {
                    note(format_args!("not undone yet, the next start tries again: {}: {obstacle}", record.name));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        // From here on no operation can act: the owner's objects are all that is left, and none comes.
        self.log.close()?;
        let orphans = OperationLog::reap_orphans(&*self.backend, &self.owner, &self.dir).await?;
        undone.extend(orphans.iter().map(named));
        undone.sort();
        undone.dedup();
        Ok(undone)
    }
}

fn open(dir: &Path, owner: &OwnerId) -> Result<OperationLog, Stop> {
    OperationLog::open(dir, owner.clone(), JournalOptions::default()).map_err(|error| match error.kind() {
        runtide_core::ErrorKind::Conflict => Stop::refused(format_args!(
            "another run has {} open: wait for its end, or name another folder with --dir",
            dir.display()
        )),
        _ => error.into(),
    })
}

/// The label of everything that is made with this folder: what carries it is removed, so no other folder has the same.
fn owner(folder: &Path) -> io::Result<OwnerId> {
    fs::create_dir_all(folder)?;
    let file = folder.join("owner");
    match fs::read_to_string(&file) {
        Ok(owner) if owner.starts_with("example-sidecar-") => return Ok(owner.trim().into()),
        // Empty: the run that made it was killed before it used it.
        Ok(owner) if !owner.is_empty() => return Err(io::Error::other(format!("{} is not its own", file.display()))),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let owner = format!("example-sidecar-{:016x}", RandomState::new().build_hasher().finish());
    fs::write(&file, &owner)?;
    fs::File::open(&file)?.sync_all()?;
    Ok(owner.into())
}

fn named(undo: &Undo) -> String {
    match &undo.action {
        UndoAction::RemoveInstance => format!("instance {}", undo.name),
        UndoAction::RemoveNetwork => format!("network {}", undo.name),
        UndoAction::RemoveImage => format!("image {}", undo.name),
        UndoAction::Disconnect(network) => format!("{} in network {network}", undo.name),
        other => format!("{other:?} {}", undo.name),
    }
}
