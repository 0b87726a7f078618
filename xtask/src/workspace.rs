//! Paths of this checkout, and its cargo command.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout that this tool was built from.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A folder or file below `target/`.
///
/// Always the one of the checkout, also under `CARGO_TARGET_DIR`: a test that calls `testbed kill` must find the
/// daemon that another environment started.
pub(crate) fn target(below: &str) -> PathBuf {
    root().join("target").join(below)
}

/// Arguments of cargo for all crates of the workspace with all their features.
pub(crate) const ALL: [&str; 2] = ["--workspace", "--all-features"];

/// The file in `target/` that a run of all tests holds locked: two in one checkout would mix their reports, and one would take down
/// the other's daemons.
pub(crate) const TEST_LOCK: &str = "xtask-test.lock";

/// `path` as one would write it in the root of the checkout.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// `cargo`, in the root of the checkout, without the variables that the cargo that runs this tool set for it.
///
/// Build scripts that read those variables would be built again at each change between `cargo test` and
/// `cargo xtask test`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let about_this_tool = name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE");
        if about_this_tool {
            command.env_remove(name);
        }
    }
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    let mut line = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
