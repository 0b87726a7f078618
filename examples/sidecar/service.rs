//! [`Service`]: what the sidecar offers, and the work that the main process does with it.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use runtide_core::{
    ImageRef,
    manager::{InstanceSpec, Readiness},
};

/// The web server's page.
const PAGE: &str = "Hello from the sidecar";

/// Time that the sidecar has to end by itself: a web server without state needs none.
const STOP: Duration = Duration::from_secs(1);

/// Service that the sidecar offers in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// A page, by busybox's web server.
    Web,
    /// Builds of images. In a private network they cannot fetch a base image: this one begins with nothing.
    BuildKit,
}

impl Service {
    /// BuildKit for an image with that name, as `moby/buildkit:v0.17`; the web server otherwise.
    pub(crate) fn of(image: &ImageRef) -> Self {
        let name = image.as_str().rsplit('/').next().unwrap_or_default();
        if name.starts_with("buildkit") { Self::BuildKit } else { Self::Web }
    }

    pub(crate) fn port(self) -> NonZeroU16 {
        const WEB: NonZeroU16 = NonZeroU16::new(8080).unwrap();
        const BUILDKIT: NonZeroU16 = NonZeroU16::new(1234).unwrap();
        match self {
            Self::Web => WEB,
            Self::BuildKit => BUILDKIT,
        }
    }

    /// The sidecar.
    pub(crate) fn instance(self, image: &ImageRef) -> InstanceSpec {
        let spec = InstanceSpec::of_image(image.clone()).with_stop_timeout(Some(STOP));
        let port = self.port();
        match self {
            Self::Web => {
                let serve = format!(
                    "mkdir -p /tmp/www && echo {PAGE} >/tmp/www/index.html && echo serving && exec httpd -f -p {port} -h /tmp/www"
                );
                spec.with_entrypoint(["sh"]).with_command(["-c", &serve])
            }
            Self::BuildKit => {
                // The image's own entry point is the daemon. Its workers are containers inside of this one.
                let tcp = format!("tcp://0.0.0.0:{port}");
                spec.with_command(["--addr", "unix:///run/buildkit/buildkitd.sock", "--addr", &tcp])
                    .with_native([("privileged", "true")])
            }
        }
    }

    /// A probe from inside: it works also where the runtime is on another machine.
    pub(crate) fn ready(self) -> Readiness {
        let argv = match self {
            Self::Web => self.work(SocketAddr::from(([127, 0, 0, 1], self.port().get()))),
            Self::BuildKit => ["buildctl", "debug", "workers"].map(str::to_owned).to_vec(),
        };
        Readiness::Command(argv)
    }

    /// The work, as a command of the main process.
    pub(crate) fn work(self, at: SocketAddr) -> Vec<String> {
        match self {
            Self::Web => ["wget", "-q", "-O-", &format!("http://{at}/")].map(str::to_owned).to_vec(),
            Self::BuildKit => {
                let build = format!(
                    "set -e; mkdir -p /tmp/src; cd /tmp/src; echo hello >hello; \
                     printf 'FROM scratch\\nCOPY hello /hello\\n' >Dockerfile; \
                     buildctl --addr tcp://{at} build --progress plain --frontend dockerfile.v0 \
                     --local context=. --local dockerfile=. --output type=tar,dest=/tmp/image.tar; \
                     echo 'the image has:'; tar -tf /tmp/image.tar"
                );
                vec!["sh".to_owned(), "-c".to_owned(), build]
            }
        }
    }

    /// The programs that the image must have.
    pub(crate) fn needs(self) -> &'static str {
        match self {
            Self::Web => "sh, httpd and wget, as busybox has them",
            Self::BuildKit => "buildkitd and buildctl, and the runtime must allow privileged instances",
        }
    }
}

/// Parses the option `--ready`.
pub(crate) fn readiness(text: &str) -> Result<Readiness, String> {
    let port = |number: &str| number.parse::<NonZeroU16>().map_err(|_| format!("'{number}' is not a port"));
    match text.split_once(':') {
        None if text == "running" => Ok(Readiness::Running),
        None if text == "healthy" => Ok(Readiness::Healthy),
        Some(("tcp", number)) => port(number).map(Readiness::Tcp),
        Some(("http", rest)) => {
            let (number, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
            Ok(Readiness::Http { port: port(number)?, path: path.to_owned() })
        }
        Some(("log", wanted)) if !wanted.is_empty() => Ok(Readiness::Log(wanted.to_owned())),
        _ => Err("expected running, healthy, tcp:PORT, http:PORT/PATH or log:TEXT".to_owned()),
    }
}
