//! [`Command`]: the commands, and the store's calls that each one makes.

use std::{
    io::Write,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use runtide_core::{
    LabelMatch,
    store::{
        PageOptions, Precondition, ResourceFormat, ResourceRef, Revision, Selector, Since, StoreBackend,
        StoreWatchOptions,
    },
};
use runtide_examples::{Output, Stop, note};

use crate::{
    address::Store,
    apply::{self, Apply},
    input::{Lines, unreadable},
    parse::{format, label, reference, since},
    show,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or replace what a file declares: YAML (one document or many), JSON, HCL or CBOR; a unit file of systemd as it is
    Apply(Apply),
    /// Print one resource
    Get {
        /// GROUP/KIND/NAMESPACE/NAME, as `list` and `apply` print it
        #[arg(value_parser = reference)]
        reference: ResourceRef,
        /// In this format instead of the one it was written in
        #[arg(short, long, value_name = "FORMAT", value_parser = format)]
        output: Option<ResourceFormat>,
    },
    /// Print the resources
    List {
        #[command(flatten)]
        selected: Selected,
        /// The bodies, in this format
        #[arg(short, long, value_name = "FORMAT", value_parser = format)]
        output: Option<ResourceFormat>,
        /// Request N at a time; all pages show one revision
        #[arg(long, value_name = "N")]
        page: Option<NonZeroU32>,
    },
    /// Remove one resource
    Delete {
        /// GROUP/KIND/NAMESPACE/NAME
        #[arg(value_parser = reference)]
        reference: ResourceRef,
        /// Only if it was last written at this revision
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Print every change, in the order of the commits
    Watch {
        #[command(flatten)]
        selected: Selected,
        /// Begin: now, start (the present resources come first), or a revision
        #[arg(long, value_name = "WHEN", default_value = "now", value_parser = since)]
        since: Since,
        #[command(flatten)]
        output: Output,
    },
    /// Write all resources of one revision into a file
    Snapshot {
        /// The file
        file: PathBuf,
    },
    /// Replace all resources by those of a snapshot, atomically
    Restore {
        /// The file
        file: PathBuf,
    },
    /// Print counts
    Stats,
    /// Run a scripted session, and print each command
    Demo,
}

/// The resources to select; every given option must match.
#[derive(Args, Debug)]
pub(crate) struct Selected {
    /// The API group; "" for the core group
    #[arg(long)]
    group: Option<String>,
    /// The kind
    #[arg(long)]
    kind: Option<String>,
    /// The namespace; "" for resources without one
    #[arg(short, long)]
    namespace: Option<String>,
    /// The name
    #[arg(long)]
    name: Option<String>,
    /// A label: KEY, !KEY or KEY=VALUE
    #[arg(short, long, value_parser = label)]
    label: Vec<LabelMatch>,
}

impl Selected {
    fn selector(&self) -> Selector {
        let mut selector = Selector::default();
        selector.group.clone_from(&self.group);
        selector.kind.clone_from(&self.kind);
        selector.namespace.clone_from(&self.namespace);
        selector.name.clone_from(&self.name);
        selector.labels.clone_from(&self.label);
        selector
    }
}

impl Command {
    /// Carries the command out. `lines` are the session's, for a command that reads its input there.
    pub(crate) async fn perform(self, opened: &Store, lines: Option<&mut Lines>) -> Result<(), Stop> {
        let store = &**opened;
        match self {
            Self::Apply(what) => apply::apply(opened, &what, lines).await,
            Self::Get { reference, output } => match store.get(&reference, output).await? {
                Some(resource) => show::body(&resource.document, &mut std::io::stdout().lock()),
                None => Err(Stop::refused(format_args!("{reference} is not there"))),
            },
            Self::List { selected, output, page } => list(store, &selected.selector(), output, page).await,
            Self::Delete { reference, if_revision } => {
                let precondition = if_revision.map_or(Precondition::None, |at| Precondition::Is(Revision(at)));
                match store.delete(&reference, precondition).await? {
                    Some(revision) => show::line(format_args!("deleted    {reference} at {revision}")),
                    None => show::line(format_args!("unchanged  {reference} was not there")),
                }
            }
            Self::Watch { selected, since, output } => {
                let options = StoreWatchOptions::default().with_since(since);
                show::events(store.watch(&selected.selector(), options).await?, &output).await
            }
            Self::Snapshot { file } => snapshot(store, &file).await,
            Self::Restore { file } => {
                let mut from = tokio::fs::File::open(&file).await.map_err(|error| unreadable(&file, &error))?;
                let revision = store.restore(&mut from).await?;
                let count = store.stats().await?.resource_count;
                show::line(format_args!("restored   {count} resources at {revision}"))
            }
            Self::Stats => {
                let stats = store.stats().await?;
                show::line(format_args!("store      {}", store.name()))?;
                show::line(format_args!("resources  {}", stats.resource_count))?;
                show::line(format_args!("watches    {}", stats.subscriber_count))?;
                show::line(format_args!("revision   {} (a watch can begin after {})", stats.revision, stats.oldest))
            }
            Self::Demo => Err(Stop::refused("the demo cannot run inside a session: it is a session itself")),
        }
    }
}

async fn list(
    store: &dyn StoreBackend,
    selector: &Selector,
    output: Option<ResourceFormat>,
    page: Option<NonZeroU32>,
) -> Result<(), Stop> {
    let mut found = Vec::new();
    let mut options = PageOptions::default().with_format(output).with_limit(page);
    let mut pages = 0;
    let revision = loop {
        let page = store.list(selector, options.clone()).await?;
        found.extend(page.items);
        pages += 1;
        options.after = page.next;
        if options.after.is_none() {
            break page.revision;
        }
    };
    if output.is_none() {
        show::table(&found)?;
    } else {
        let mut out = std::io::stdout().lock();
        for (at, resource) in found.iter().enumerate() {
            if at > 0 && output == Some(ResourceFormat::Yaml) {
                writeln!(out, "---")?;
            }
            show::body(&resource.document, &mut out)?;
            if Some(resource.document.format) != output {
                note(format_args!("{} is shown as it was written", resource.reference));
            }
        }
    }
    note(format_args!("{} at revision {revision}, in {}", counted(found.len(), "resource"), counted(pages, "page")));
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Writes a snapshot next to the file, and renames it to the file once it is complete.
async fn snapshot(store: &dyn StoreBackend, file: &Path) -> Result<(), Stop> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let refused = |error: std::io::Error| unreadable(file, &error);
    let mut out = tokio::fs::File::create(&unfinished).await.map_err(refused)?;
    let seal = store.snapshot(&mut out).await?;
    out.sync_all().await.map_err(refused)?;
    tokio::fs::rename(&unfinished, file).await.map_err(refused)?;
    show::line(format_args!("written    {} resources at {}, sealed {}", seal.count, seal.revision, seal.digest))
}
