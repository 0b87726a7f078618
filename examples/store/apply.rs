//! `apply`: applies every document of a file, and prints its changes.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use runtide_core::{
    ErrorKind,
    store::{
        Applied, ApplyOutcome, Document, Precondition, Resource, ResourceFormat, ResourceRef, Revision, StoreBackend,
    },
};
use runtide_examples::{Stop, note};
use tokio::sync::oneshot;

use crate::{
    address::Store,
    difference,
    input::{Lines, unreadable},
    naming,
    parse::{format, reference},
    show,
};

/// Attempts to replace a resource that other writers change at the same time.
const ATTEMPTS: usize = 10;

#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// The file, or - for stdin
    file: PathBuf,
    /// Its format; by default that of its ending, else yaml, or native for a unit of systemd
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<ResourceFormat>,
    /// Its reference, if it has none in itself: GROUP/KIND/NAMESPACE/NAME, as /service//web; by default a unit of systemd
    /// is named by its file
    #[arg(long = "as", value_name = "REFERENCE", value_parser = reference)]
    reference: Option<ResourceRef>,
    /// Only if it does not exist yet
    #[arg(long, conflicts_with = "if_revision")]
    if_absent: bool,
    /// Only if it was last written at this revision; for one document
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

/// Applies every document, in their order, up to the first one that cannot be applied.
pub(crate) async fn apply(store: &Store, what: &Apply, lines: Option<&mut Lines>) -> Result<(), Stop> {
    let from_stdin = what.file == Path::new("-");
    let bytes = match lines {
        Some(lines) if from_stdin => lines.body().await?.into_bytes(),
        _ if from_stdin => all_of_stdin().await?,
        _ => tokio::fs::read(&what.file).await.map_err(|error| unreadable(&what.file, &error))?,
    };
    let ending = what.file.extension().and_then(|ending| ending.to_str()).and_then(|ending| ending.parse().ok());
    let is_unit = naming::unit(&what.file).is_some() || what.reference.as_ref().is_some_and(naming::is_unit);
    let assumed = if is_unit { ResourceFormat::Native } else { ResourceFormat::Yaml };
    let written = what.format.or(ending).unwrap_or(assumed);
    let documents = Document::new(written, bytes).split()?;
    if documents.is_empty() {
        note("the file has no document");
    }
    if what.if_revision.is_some() && documents.len() > 1 {
        return Err(Stop::refused("--if-revision is for one document, and there are several"));
    }
    if what.reference.is_some() && documents.len() > 1 {
        return Err(Stop::refused("--as is for one document, and there are several"));
    }
    // All are parsed before the first is applied: half a file is worse than none.
    let named: Vec<(ResourceRef, Document)> = documents
        .into_iter()
        .enumerate()
        .map(|(at, document)| Ok((naming::of(&document, at + 1, &what.file, what.reference.as_ref())?, document)))
        .collect::<Result<_, Stop>>()?;
    let mut has_defined = false;
    for (reference, document) in named {
        let reference = store.complete(reference, &document, has_defined).await?;
        has_defined |= reference.kind() == "CustomResourceDefinition";
        one(&**store, what, &reference, document).await?;
    }
    Ok(())
}

async fn one(store: &dyn StoreBackend, what: &Apply, reference: &ResourceRef, document: Document) -> Result<(), Stop> {
    let (before, applied) = if what.if_absent {
        (None, store.apply(reference, document.clone(), Precondition::Absent).await?)
    } else if let Some(revision) = what.if_revision {
        let before = store.get(reference, None).await?;
        (before, store.apply(reference, document.clone(), Precondition::Is(Revision(revision))).await?)
    } else {
        replace(store, reference, &document).await?
    };
    let outcome = match applied.outcome {
        ApplyOutcome::Created => "created",
        ApplyOutcome::Changed => "changed",
        _ => "unchanged",
    };
    show::line(format_args!("{outcome:<9}  {reference} at {}", applied.revision))?;
    match before {
        Some(before) if applied.outcome == ApplyOutcome::Changed => {
            difference::show(&before, &document, applied.revision)
        }
        _ => Ok(()),
    }
}

/// Replaces exactly the revision that was read, so that the printed difference is the one that was made.
async fn replace(
    store: &dyn StoreBackend,
    reference: &ResourceRef,
    document: &Document,
) -> Result<(Option<Arc<Resource>>, Applied), Stop> {
    for _ in 0..ATTEMPTS {
        let before = store.get(reference, None).await?;
        let precondition = before.as_ref().map_or(Precondition::Absent, |before| Precondition::Is(before.revision));
        match store.apply(reference, document.clone(), precondition).await {
            Ok(applied) => return Ok((before, applied)),
            // Another writer was faster: read its revision.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Stop::refused(format_args!("{reference} is changed by other writers all the time; try again")))
}

/// Reads stdin on a thread that the program does not join, so that Ctrl-C ends it during a read.
async fn all_of_stdin() -> Result<Vec<u8>, Stop> {
    let (done, waits) = oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // One byte above the limit is enough to find that the input is too long.
        let most = u64::try_from(Document::MAX_BYTES + 1).unwrap_or(u64::MAX);
        let read = std::io::stdin().lock().take(most).read_to_end(&mut bytes);
        let _ = done.send(read.map(|_| bytes));
    });
    let read = waits.await.map_err(Stop::refused)?;
    read.map_err(|error| Stop::refused(format_args!("stdin: {error}")))
}
