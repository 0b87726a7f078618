//! A folder whose files change, for `custom_backend` to watch.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

/// Pause between two changes.
const BEAT: Duration = Duration::from_millis(400);

/// Writes a folder of small files, each an instance with its state as text, and changes them until the folder is
/// removed.
///
/// # Errors
/// The folder cannot be written.
pub fn folder_churn(folder: &Path) -> io::Result<()> {
    let folder = Folder(folder.to_owned());
    folder.write("web", "running")?;
    folder.write("db", "running")?;
    tokio::spawn(async move {
        for round in 1.. {
            sleep(BEAT).await;
            let job = format!("job-{round}");
            folder.write(&job, "running")?;
            sleep(BEAT * 2).await;
            folder.write("web", "failed 1")?;
            folder.write(&job, "stopped 0")?;
            sleep(BEAT).await;
            folder.write("web", "running")?;
            sleep(BEAT).await;
            std::fs::remove_file(folder.0.join(&job))?;
            folder.write("db", if round % 2 == 0 { "running" } else { "paused" })?;
        }
        Ok::<(), io::Error>(())
    });
    Ok(())
}

struct Folder(PathBuf);

impl Folder {
    /// Writes atomically: a reader sees the old text or the new one.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.0.join(format!(".{name}"));
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, self.0.join(name))
    }
}
