//! Names for what cannot lie in the folder of a daemon.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How all of them begin.
pub(super) const PREFIX: &str = "/run/runtide-testbed-";

/// A short path below `/run`, each folder's own.
pub(super) fn in_run(folder: &Path) -> PathBuf {
    // FNV-1a: the same name for the same folder in every build of this tool.
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let name = folder.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash);
    PathBuf::from(format!("{PREFIX}{name:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_has_a_name_of_its_own_which_leaves_room_for_a_socket() {
        let far = Path::new("/home/user/with/a/long/name/and/many/folders/runtide/target/testbed/systemd");
        assert_eq!(in_run(far), in_run(far));
        assert_ne!(in_run(far), in_run(&far.with_file_name("systemd2")));
        assert!(in_run(far).join("root/run/dbus/system_bus_socket").as_os_str().len() < 108);
    }
}
