//! [`Real`]: a real Docker daemon, for what a fake one cannot show. What a bench makes on it goes with it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use bollard::{Docker, models::ContainerCreateBody};
use runtide_docker::{Config, DockerBackend, Endpoint};

use crate::watchers;

/// The daemon of the testbed, or any other with a unix socket, through which nothing but the bench's own things is changed.
#[derive(Debug)]
pub struct Real {
    address: String,
    socket: PathBuf,
    image: String,
    /// Label of all that this bench makes.
    label: String,
}

impl Real {
    /// The daemon that `RUNTIDE_TEST_DOCKER` names, with the image of `RUNTIDE_TEST_IMAGE`. `None`, and a line that says so, without
    /// them.
    pub fn from_env(bench: &str) -> Option<Self> {
        let address = std::env::var("RUNTIDE_TEST_DOCKER").ok();
        let socket = address.as_deref().and_then(|address| address.strip_prefix("unix://")).map(PathBuf::from);
        let (Some(address), Some(socket), Ok(image)) = (address, socket, std::env::var("RUNTIDE_TEST_IMAGE")) else {
            println!("{bench}: skipped, as RUNTIDE_TEST_DOCKER and RUNTIDE_TEST_IMAGE name no daemon on a unix socket");
            return None;
        };
        let label = format!("runtide.bench={}", std::process::id());
        let real = Self { address, socket, image, label };
        println!("{bench}: on Docker {}", real.docker(["version", "--format", "{{.Server.Version}}"]));
        Some(real)
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// An image with a shell.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The label of all that this bench makes.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A name of this bench's own.
    pub fn name(&self, of: &str) -> String {
        format!("runtide-bench-{}-{of}", std::process::id())
    }

    /// Runtide on it.
    pub fn runtide(&self) -> DockerBackend {
        DockerBackend::new(Config::default().with_endpoint(Endpoint::unix(&self.socket))).expect("a configuration")
    }

    /// bollard on it, at the daemon's version.
    pub async fn bollard(&self) -> Docker {
        watchers::bollard(&self.socket).negotiate_version().await.expect("the daemon's version")
    }

    /// The `docker` command on it.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.address).args(arguments).stdin(Stdio::null());
        command
    }

    /// Output of the `docker` command, which must succeed.
    pub fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = self.command(arguments);
        let output = command.output().expect("the docker command");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// As `docker create`, and with this bench's label; the container's id.
    pub fn create(&self, options: &[&str], argv: &[&str]) -> String {
        let labelled = ["create", "--label", &self.label];
        self.docker(
            labelled.into_iter().chain(options.iter().copied()).chain([self.image()]).chain(argv.iter().copied()),
        )
    }

    /// Creates this many containers, four at a time, and starts none of them.
    pub async fn create_many(&self, count: usize) {
        let docker = self.bollard().await;
        let (label, value) = self.label.split_once('=').expect("a key and a value");
        let container = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(vec!["true".to_owned()]),
            labels: Some([(label.to_owned(), value.to_owned())].into()),
            ..ContainerCreateBody::default()
        };
        let next = AtomicUsize::new(0);
        let some = || async {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                docker.create_container(None, container.clone()).await.expect("a container");
            }
        };
        tokio::join!(some(), some(), some(), some());
    }

    /// Runs a shell command in a container to its end; the container's id.
    pub fn run_to_end(&self, options: &[&str], script: &str) -> String {
        let id = self.create(options, &["sh", "-c", script]);
        self.docker(["start", &id]);
        assert_eq!(self.docker(["wait", &id]), "0", "{script}");
        id
    }

    /// Removes what has this bench's label, and its image of this name.
    pub fn clean(&self) {
        let filter = format!("label={}", self.label);
        let ids = self.docker(["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        for ids in ids.lines().collect::<Vec<_>>().chunks(50) {
            self.docker(["rm", "--force", "--volumes"].into_iter().chain(ids.iter().copied()));
        }
        for (list, remove) in [
            (["volume", "ls", "--quiet", "--filter", &filter], ["volume", "rm"]),
            (["image", "ls", "--quiet", "--filter", &filter], ["image", "rm"]),
        ] {
            for one in self.docker(list).lines() {
                self.docker(remove.into_iter().chain([one]));
            }
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.clean();
    }
}
