//! The packages of the workspace and the root files of their crates, as cargo knows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::workspace;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// A package of this workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// One line of its dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev` or `build`; `None` for a dependency of the crate itself.
    pub(crate) kind: Option<String>,
}

/// A crate of the package: its library, a test program, an example.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

impl Package {
    /// `true` if it has a library, which has documentation.
    pub(crate) fn has_library(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"))
    }

    /// The package's folder, from the root of the checkout.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.manifest_path.parent().unwrap_or(Path::new(""));
        folder.strip_prefix(workspace::root()).unwrap_or(folder).to_path_buf()
    }
}

/// All packages of the workspace; nothing is fetched for it.
pub(crate) fn packages() -> Outcome<Vec<Package>> {
    const LIMIT: Duration = Duration::from_secs(120);
    let mut command = workspace::cargo();
    command.args(["metadata", "--format-version", "1", "--no-deps"]);
    let said = process::capture(&mut command, LIMIT, Interrupt::Ends)?;
    if !said.status.success() {
        return Err(Failure::failed(said.complaint()));
    }
    let metadata: Metadata = serde_json::from_str(&said.stdout).doing("cannot read what cargo metadata says")?;
    Ok(metadata.packages)
}
