//! [`find`]: the instance that the user means.

use std::sync::Arc;

use runtide_core::{Completeness, Instance, ListOptions, RuntimeBackend};

use crate::Stop;

/// Characters of an id that are taken for the whole: fewer are a mistyped name.
const SHORTEST: usize = 4;

/// The instance of this id, of this name, or whose id begins so, in this order; the inner error says why none is listed. A
/// stopped instance has output too.
///
/// # Errors
/// `Refused` for a runtime that lists nothing.
pub async fn find(backend: &dyn RuntimeBackend, name: &str) -> Result<Result<Arc<Instance>, Stop>, Stop> {
    let listing = backend.list_instances(ListOptions::default()).await?;
    if let Some(one) = listing.instances.iter().find(|one| one.id.as_str() == name) {
        return Ok(Ok(Arc::clone(one)));
    }
    let mut named: Vec<_> = listing.instances.iter().filter(|one| one.name == name).collect();
    if named.is_empty() && name.len() >= SHORTEST {
        named = listing.instances.iter().filter(|one| one.id.as_str().starts_with(name)).collect();
    }
    match named[..] {
        [one] => Ok(Ok(Arc::clone(one))),
        [] => Ok(Err(match listing.completeness {
            Completeness::Partial(failures) => Stop::refused(format_args!(
                "no readable instance has the name {name}, and {} could not be read: {}",
                failures.len(),
                failures.first().map(ToString::to_string).unwrap_or_default()
            )),
            _ => Stop::refused(format_args!("{} has no instance {name}; `ps --all` lists them", backend.id())),
        })),
        _ => {
            let ids: Vec<_> = named.iter().map(|one| one.id.as_str()).collect();
            Err(Stop::refused(format_args!(
                "{name} is the name, or the begin of the id, of several; give an id: {}",
                ids.join(", ")
            )))
        }
    }
}
