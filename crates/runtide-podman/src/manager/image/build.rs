//! The build: by the service's own builder, with the parameters that `podman --remote build` sends.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use runtide_core::{
    Error, ErrorKind, Result,
    manager::{BuildContext, BuildOptions, ImageStream},
};
use runtide_engine::{
    Request,
    image::{Context, Rules, Upload, config_header, tag_named, uploaded},
};

use super::{Images, TAR, credentials, progress::Goal};

const OPERATION: &str = "podman.build_image";

impl Images {
    pub(super) async fn begin_build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream> {
        let site = self.client.site(OPERATION);
        // Without layers nothing is taken from the cache; without namespaces steps run in the machine's own network. Intermediate
        // containers are removed also where a step fails.
        let mut request = Request::post("/build?layers=1&rm=1&forcerm=1&pullpolicy=missing&networkmode=0")
            .with_query("outputformat", "application/vnd.oci.image.manifest.v1+json")
            .with_query("nsoptions", r#"[{"Name":"user","Host":true,"Path":""}]"#);
        for tag in &options.tags {
            tag_named(site, tag)?;
            request = request.with_query("t", tag);
        }
        if options.no_cache {
            request = request.with_query("nocache", 1);
        }
        if let Some(target) = options.target.as_deref().filter(|target| !target.is_empty()) {
            request = request.with_query("target", target);
        }
        if !options.args.is_empty() {
            request = request.with_query("buildargs", serde_json::json!(options.args));
        }
        if !options.labels.is_empty() {
            let labels: BTreeMap<&str, &str> = options.labels.iter().collect();
            request = request.with_query("labels", serde_json::json!(labels));
        }
        let named = |path: &str| serde_json::json!([path]);
        let context = match context {
            BuildContext::Directory(path) => {
                let context = Context::open(site, Rules::Podman, &path, options.dockerfile.as_deref()).await?;
                request = request.with_query("dockerfile", named(context.dockerfile()));
                Ok(context)
            }
            BuildContext::Tar(archive) => {
                if let Some(path) = &options.dockerfile {
                    request = request.with_query("dockerfile", named(&self.in_archive(path)?));
                }
                Err(archive)
            }
            _ => return Err(site.error(ErrorKind::Unsupported, "this kind of context is not known here")),
        };
        self.client.server().await?;
        let auth = credentials::of_every_registry(&self.client, OPERATION).await;
        if !auth.is_empty() {
            request = request.with_header("X-Registry-Config", config_header(&auth).expose());
        }
        Ok(match context {
            Ok(directory) => {
                let (upload, body) = Upload::of("the context", directory.into_stream());
                uploaded(&self.client, OPERATION, request.with_body(body, TAR), upload, Goal::build())
            }
            Err(archive) => {
                let (upload, body) = Upload::of_archive(archive);
                uploaded(&self.client, OPERATION, request.with_body(body, TAR), upload, Goal::build())
            }
        })
    }

    /// The path of a Dockerfile in an archive. Podman would take one that leads out of it for a file of its own machine, and one with
    /// a scheme for an address.
    fn in_archive(&self, path: &Path) -> Result<String> {
        let refused = |why: &str| -> Error {
            let site = self.client.site(OPERATION);
            site.error(ErrorKind::InvalidInput, format!("the path of the Dockerfile {why}"))
                .with_context("path", path.display().to_string().escape_debug())
        };
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(part) => parts.push(part.to_str().ok_or_else(|| refused("is not UTF-8"))?),
                Component::CurDir => {}
                _ => return Err(refused("leads out of the archive")),
            }
        }
        if parts.is_empty() {
            return Err(refused("is empty"));
        }
        Ok(parts.join("/"))
    }
}
