//! [`Running`]: a pull, a load or a build under way, from the engine's lines to the image that is there.

use std::{collections::VecDeque, fmt};

use futures_core::Stream;
use futures_util::{TryFutureExt, stream};
use runtide_core::{
    Error, ErrorKind, ImageRef, Result,
    backend::CallSite,
    manager::{ImageProgress, ImageStream},
};

use super::{Description, Upload, failure, path_of};
use crate::{
    client::Client,
    dialect::Dialect,
    own_answer::OwnAnswer,
    progress::{Progress, ProgressBody},
    request::Request,
};

/// The request, and the engine's words about its result so far.
pub trait Goal: fmt::Debug + Send + 'static {
    /// Notes what a line says of the result.
    fn note(&mut self, line: &Progress);

    /// One line as items of the stream.
    fn step(&mut self, line: Progress) -> Vec<ImageProgress>;

    /// The images that must be there now.
    ///
    /// # Errors
    /// The reason why there are none.
    fn results(&self) -> std::result::Result<Vec<ImageRef>, (ErrorKind, &'static str)>;

    /// Id of the one result, where the engine named it. It takes the place of a name that leads to another image by now.
    fn id(&self) -> Option<&str> {
        None
    }

    /// Name of the image that was asked for, for errors.
    fn image(&self) -> Option<&str> {
        None
    }
}

/// A request under way whose answer is lines of progress.
#[derive(Debug)]
pub struct Running<D: Dialect, G> {
    client: Client<D>,
    operation: &'static str,
    body: ProgressBody<D>,
    goal: G,
    upload: Option<Upload>,
    ready: VecDeque<ImageProgress>,
    over: bool,
}

impl<D: Dialect, G: Goal> Running<D, G> {
    /// The request whose answer has begun, with the upload that is its body.
    pub fn new(answer: OwnAnswer<D>, goal: G, upload: Option<Upload>) -> Self {
        let (client, operation) = (answer.client().clone(), answer.operation());
        let body = ProgressBody::new(answer);
        Self { client, operation, body, goal, upload, ready: VecDeque::new(), over: false }
    }

    /// Its progress. Dropped, it closes the connection, which ends the work.
    pub fn into_stream(self) -> impl Stream<Item = Result<ImageProgress>> + Send + 'static {
        stream::unfold(self, |mut running| async move {
            let item = running.next().await.transpose()?;
            running.over |= item.is_err();
            Some((item, running))
        })
    }

    async fn next(&mut self) -> Result<Option<ImageProgress>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.over {
                return Ok(None);
            }
            match self.body.next().await {
                Ok(Some(line)) => {
                    if let Some(message) = &line.error {
                        return Err(self.reason(|site| failure::of_message(site, message)));
                    }
                    self.goal.note(&line);
                    self.ready.extend(self.goal.step(line));
                }
                Ok(None) => {
                    self.over = true;
                    self.ready = self.finish().await?.into_iter().map(ImageProgress::Done).collect();
                }
                Err(error) => return Err(self.reason(|_| error)),
            }
        }
    }

    /// The failure of the upload, if that is why.
    fn reason(&self, other: impl FnOnce(CallSite<'_>) -> Error) -> Error {
        let site = self.client.site(self.operation);
        let error = self.upload.as_ref().and_then(|upload| upload.failure(site)).unwrap_or_else(|| other(site));
        match self.goal.image() {
            Some(image) => error.with_context("image", image),
            None => error,
        }
    }

    /// The images, once the engine has shown them: a success in words alone is none.
    async fn finish(&mut self) -> Result<Vec<ImageRef>> {
        let results = self.goal.results().map_err(|(kind, why)| self.reason(|site| site.error(kind, why)))?;
        let mut found = Vec::new();
        for image in results {
            let id = id_of(&self.client, self.operation, &image).await?;
            found.push((image, id));
        }
        if let (Some(id), [(image, found)]) = (self.goal.id(), found.as_mut_slice())
            && found != id
        {
            *image = ImageRef::from(id);
            *found = id_of(&self.client, self.operation, image).await?;
        }
        // The engine's list of ids may have those of the named images as well, or not, as the order of the archive falls.
        let is_named = |id: &str| found.iter().any(|(image, other)| other == id && image.as_str() != id);
        let repeated: Vec<bool> = found.iter().map(|(image, id)| image.as_str() == id && is_named(id)).collect();
        let kept = found.into_iter().zip(repeated).filter(|(_, repeated)| !repeated);
        Ok(kept.map(|((image, _), _)| image).collect())
    }
}

async fn id_of<D: Dialect>(client: &Client<D>, operation: &'static str, image: &ImageRef) -> Result<String> {
    let request = Request::get(format!("/images/{}/json", path_of(image.as_str())));
    let json = client.call(operation, request, client.deadline()).await;
    let json = json.map_err(|error| error.with_context("image", image))?;
    Ok(Description::read(client.site(operation), &json)?.id().to_owned())
}

/// The progress of a request with a body, which is sent as the stream is read.
pub fn uploaded<D: Dialect, G: Goal>(
    client: &Client<D>,
    operation: &'static str,
    request: Request,
    upload: Upload,
    goal: G,
) -> ImageStream {
    let client = client.clone();
    let begun = async move {
        match OwnAnswer::open(&client, operation, request, None).await {
            Ok(answer) => Ok(Running::new(answer, goal, Some(upload))),
            Err(error) => {
                let site = client.site(operation);
                Err(upload.failure(site).unwrap_or_else(|| failure::of_answer(site, error)))
            }
        }
    };
    ImageStream::new(begun.map_ok(Running::into_stream).try_flatten_stream())
}
