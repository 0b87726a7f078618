//! The names that callers give, checked before they become a part of a request.

use std::borrow::Cow;

use runtide_core::{Error, ErrorKind, ImageRef, Result, backend::CallSite};

use super::{Name, Reference};
use crate::{names::SHORT_ID, request::segment};

/// Refuses what could be neither an id nor a name. A name is not taken for the beginning of an id: see [`unmistakable`].
///
/// # Errors
/// `InvalidInput`, with the reason.
pub fn checked<'a>(site: CallSite<'_>, image: &'a ImageRef) -> Result<Cow<'a, str>> {
    Reference::parse(image.as_str())
        .map(|_| unmistakable(image.as_str()))
        .map_err(|why| malformed(site, image, &why.to_string()))
}

/// The name with its usual tag, where both engines would take it for the beginning of an id as well: they take any beginning that only one
/// image has, so that a second removal of `cafe` removes another image. Twelve and more characters are an id, as their commands show it.
///
/// ```
/// assert_eq!(runtide_engine::image::unmistakable("cafe"), "cafe:latest");
/// for same in ["cafe:1", "web", "a/cafe", "4481b2db2b9f"] {
///     assert_eq!(runtide_engine::image::unmistakable(same), same);
/// }
/// ```
pub fn unmistakable(image: &str) -> Cow<'_, str> {
    let is_hexadecimal = !image.is_empty() && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hexadecimal && image.len() < SHORT_ID { Cow::Owned(format!("{image}:latest")) } else { Cow::Borrowed(image) }
}

/// Refuses what could not be a name.
///
/// # Errors
/// `InvalidInput`, with the reason.
pub fn named(site: CallSite<'_>, image: &ImageRef) -> Result<Name> {
    match Reference::parse(image.as_str()) {
        Ok(Reference::Name(name)) => Ok(name),
        Ok(Reference::Id(_)) => Err(malformed(site, image, "it is an id, and a name is expected")),
        Err(why) => Err(malformed(site, image, &why.to_string())),
    }
}

/// Refuses what could not be a name that an image is given. The name has a tag.
///
/// # Errors
/// `InvalidInput`, with the reason.
pub fn tag_named(site: CallSite<'_>, tag: &ImageRef) -> Result<Name> {
    let name = named(site, tag)?;
    if name.digest().is_some() {
        return Err(malformed(site, tag, "a digest cannot be given to an image"));
    }
    Ok(name.exact())
}

/// A checked reference in a path. Its slashes separate the parts of a name, and the engine takes them so.
pub fn path_of(image: &str) -> String {
    image.split('/').map(|part| segment(part).to_string()).collect::<Vec<_>>().join("/")
}

fn malformed(site: CallSite<'_>, image: &ImageRef, why: &str) -> Error {
    let shown: String = image.as_str().chars().take(80).collect::<String>().escape_debug().collect();
    let message = format!("'{shown}' is not an image's name: {why}");
    site.error(ErrorKind::InvalidInput, message).with_context("image", shown)
}
