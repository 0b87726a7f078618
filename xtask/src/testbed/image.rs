//! An image without a registry: busybox, and a link for everything that it can do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::cache::hex;
use super::packages;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};

/// Its name, as `RUNTIDE_TEST_IMAGE` gives it.
pub(super) const NAME: &str = "runtide/busybox:latest";

const LIMIT: Duration = Duration::from_secs(60);

/// The root file system as a tar, the same bytes on each run; `scratch` is a folder to make it in.
pub(super) fn tar(scratch: &Path) -> Outcome<Vec<u8>> {
    let busybox = packages::find("busybox").ok_or_else(|| Failure::refused("busybox-static is not installed"))?;
    let program = fs::read(&busybox).doing(format_args!("cannot read {}", busybox.display()))?;
    if needs_an_interpreter(&program) {
        return Err(Failure::refused("busybox is not static: install busybox-static"));
    }
    let _ = fs::remove_dir_all(scratch);
    let made = lay_out(scratch, &program).and_then(|()| pack(scratch));
    let _ = fs::remove_dir_all(scratch);
    made
}

/// An image of an archive: its name, and the command that it runs by default.
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) command: &'static [&'static str],
}

/// An archive in the format of `docker save`, with images that have the same files and different commands.
pub(super) fn archive(scratch: &Path, images: &[Named]) -> Outcome<Vec<u8>> {
    let layer = tar(scratch)?;
    let _ = fs::remove_dir_all(scratch);
    let made = lay_out_archive(scratch, &layer, images).and_then(|()| pack(scratch));
    let _ = fs::remove_dir_all(scratch);
    made
}

fn lay_out_archive(root: &Path, layer: &[u8], images: &[Named]) -> Outcome<()> {
    let doing = "cannot lay out the archive of images";
    let hash = hex(ring::digest::digest(&ring::digest::SHA256, layer).as_ref());
    fs::create_dir_all(root).and_then(|()| fs::write(root.join("layer.tar"), layer)).doing(doing)?;
    let mut manifest = Vec::new();
    for (number, image) in (1..).zip(images) {
        let config = format!("{number}.json");
        fs::write(root.join(&config), configuration(image, &hash).to_string()).doing(doing)?;
        manifest.push(json!({ "Config": config, "RepoTags": [image.name], "Layers": ["layer.tar"] }));
    }
    fs::write(root.join("manifest.json"), json!(manifest).to_string()).doing(doing)
}

fn configuration(image: &Named, hash: &str) -> serde_json::Value {
    // As Go names them.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": image.command, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
        "history": [{ "created_by": "runtide-testbed" }],
    })
}

fn lay_out(root: &Path, program: &[u8]) -> Outcome<()> {
    let doing = "cannot lay out the image";
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp", "var/www"] {
        fs::create_dir_all(root.join(folder)).doing(doing)?;
    }
    for folder in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o1777)).doing(doing)?;
    }
    fs::write(root.join("bin/busybox"), program).doing(doing)?;
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).doing(doing)?;
    let said = process::capture(packages::command("busybox").arg("--list"), LIMIT, Interrupt::Waits)?;
    for applet in said.stdout.lines().map(str::trim).filter(|name| !name.is_empty() && *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).doing(doing)?;
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    fs::write(root.join("etc/passwd"), users).doing(doing)?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").doing(doing)
}

fn pack(root: &Path) -> Outcome<Vec<u8>> {
    let file = root.with_extension("tar");
    let mut command = packages::command("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C"]);
    command.arg(root).arg("-cf").arg(&file).arg(".");
    let said = process::capture(&mut command, LIMIT, Interrupt::Waits)?;
    if !said.status.success() {
        return Err(Failure::failed(format_args!("tar: {}", said.complaint())));
    }
    let bytes = fs::read(&file).doing(format_args!("cannot read {}", file.display()));
    let _ = fs::remove_file(&file);
    bytes
}

/// `true` if a 64-bit little-endian ELF file names a dynamic linker; a file of another format runs here by other means.
fn needs_an_interpreter(elf: &[u8]) -> bool {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let look = || {
        if elf.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        (0..count).find(|entry| {
            let at = usize::try_from(table.saturating_add(entry * size)).ok();
            at.and_then(|at| number(at, 4)) == Some(INTERPRETER)
        })
    };
    look().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_distinguished_from_a_static_one() {
        let mut elf = vec![0_u8; 0x40 + 2 * 0x38];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 0x38;
        elf[0x38] = 2;
        elf[0x40] = 1;
        elf[0x40 + 0x38] = 1;
        assert!(!needs_an_interpreter(&elf));
        elf[0x40 + 0x38] = 3;
        assert!(needs_an_interpreter(&elf));
        assert!(!needs_an_interpreter(b"#!/bin/sh\n"));
        assert!(!needs_an_interpreter(&elf[..0x30]), "a torn header");
    }
}
