//! The build: by the daemon's own builder. BuildKit takes its context over a session of the client's, which this is not.

use std::collections::BTreeMap;

use runtide_core::{
    ErrorKind, Result,
    manager::{BuildContext, BuildOptions, ImageStream},
};
use runtide_engine::{
    Request,
    image::{Context, Rules, Upload, config_header, tag_named, uploaded},
};

use super::{Images, TAR, credentials, progress::Goal};

const OPERATION: &str = "docker.build_image";

impl Images {
    pub(super) async fn begin_build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream> {
        let site = self.client.site(OPERATION);
        // Intermediate containers are removed also where a step fails.
        let mut request = Request::post("/build?version=1&rm=1&forcerm=1");
        for tag in &options.tags {
            request = request.with_query("t", tag_named(site, tag)?);
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
        let context = match context {
            BuildContext::Directory(path) => {
                let context = Context::open(site, Rules::Docker, &path, options.dockerfile.as_deref()).await?;
                request = request.with_query("dockerfile", context.dockerfile());
                Ok(context)
            }
            BuildContext::Tar(archive) => {
                if let Some(path) = &options.dockerfile {
                    let text = path.to_str().ok_or_else(|| {
                        site.error(ErrorKind::InvalidInput, "the path of the Dockerfile is not UTF-8")
                            .with_context("path", path.display())
                    })?;
                    request = request.with_query("dockerfile", text);
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
}
