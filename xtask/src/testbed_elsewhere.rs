//! The testbed's command line on systems without a testbed: its daemons are Linux daemons.

use crate::failure::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A verb and the names of daemons
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(crate) const KNOWN: [&str; 15] = [
    "docker",
    "podman",
    "registry",
    "sshd",
    "etcd",
    "systemd",
    "systemd2",
    "systemd-user",
    "k8s",
    "k8s-node",
    "k8s-fake",
    "systemd257",
    "docker26",
    "podman5",
    "k8s-libs",
];

pub(crate) const BUILT: [&str; 1] = ["k8s"];

pub(crate) const LATER: [&str; 4] = ["systemd257", "docker26", "podman5", "k8s-libs"];

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let words = arguments.words.join(" ");
    Err(Failure::refused(format_args!("`testbed {words}` needs Linux: its daemons are Linux daemons")))
}
