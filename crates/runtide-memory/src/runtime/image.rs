//! The runtime's images, and the registry that it pulls from.

use std::collections::BTreeMap;

use runtide_core::{
    Error, ErrorKind, ImageRef, InstanceId, Result,
    manager::{Effect, ImageInfo, PruneOptions, Pruned},
};

use super::State;
use crate::fault::Call;

#[derive(Debug, Default)]
pub(super) struct Images {
    here: BTreeMap<ImageRef, ImageInfo>,
    /// Images that can be pulled, by name, with the sizes of their layers in bytes.
    registry: BTreeMap<ImageRef, (ImageInfo, Vec<u64>)>,
}

/// As the runtime writes it: a name without a tag means `latest`.
pub(super) fn canonical(image: &ImageRef) -> ImageRef {
    let text = image.as_str();
    let last = text.rsplit('/').next().unwrap_or(text);
    if last.contains([':', '@']) { image.clone() } else { ImageRef::from(format!("{text}:latest")) }
}

fn check_reference(image: &ImageRef, call: Call) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let text = image.as_str();
    let ok = !text.is_empty() && text.len() <= 512 && text.bytes().all(allowed) && !text.contains("..");
    if ok {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::InvalidInput, call.operation(), "this is not the name of an image"))
    }
}

fn missing(image: &ImageRef, call: Call) -> Error {
    Error::new(ErrorKind::NotFound, call.operation(), "there is no such image").with_context("image", image)
}

impl State {
    /// By id or by name.
    pub(crate) fn image(&self, wanted: &ImageRef) -> Option<&ImageInfo> {
        let name = canonical(wanted);
        self.images.here.get(wanted).or_else(|| self.images.here.values().find(|image| image.tags.contains(&name)))
    }

    pub(crate) fn has_image(&self, wanted: &ImageRef) -> Result<bool> {
        check_reference(wanted, Call::Images)?;
        Ok(self.image(wanted).is_some())
    }

    pub(crate) fn image_or_missing(&self, wanted: &ImageRef, call: Call) -> Result<ImageInfo> {
        check_reference(wanted, call)?;
        self.image(wanted).cloned().ok_or_else(|| missing(wanted, call))
    }

    pub(crate) fn list_images(&self) -> Vec<ImageInfo> {
        self.images.here.values().cloned().collect()
    }

    /// Adds an image; its names are taken from the images that have them.
    pub(crate) fn add_image(&mut self, mut image: ImageInfo) {
        image.tags = image.tags.iter().map(canonical).collect();
        image.created_at.get_or_insert(self.wall());
        for other in self.images.here.values_mut() {
            other.tags.retain(|tag| !image.tags.contains(tag));
        }
        if let Some(before) = self.images.here.get(&image.id) {
            let more: Vec<ImageRef> = before.tags.iter().filter(|tag| !image.tags.contains(tag)).cloned().collect();
            image.tags.extend(more);
        }
        self.images.here.insert(image.id.clone(), image);
    }

    pub(super) fn publish_image(&mut self, image: &ImageInfo, layers: &[u64]) {
        for tag in &image.tags {
            self.images.registry.insert(canonical(tag), (image.clone(), layers.to_vec()));
        }
    }

    pub(crate) fn published(&self, wanted: &ImageRef) -> Result<(ImageInfo, Vec<u64>)> {
        check_reference(wanted, Call::Pull)?;
        let name = canonical(wanted);
        let (mut image, layers) =
            self.images.registry.get(&name).cloned().ok_or_else(|| missing(wanted, Call::Pull))?;
        image.tags = vec![name];
        Ok((image, layers))
    }

    pub(crate) fn tag_image(&mut self, wanted: &ImageRef, tag: &ImageRef) -> Result<()> {
        check_reference(tag, Call::Images)?;
        let mut image = self.image_or_missing(wanted, Call::Images)?;
        image.tags = vec![tag.clone()];
        self.add_image(image);
        Ok(())
    }

    /// One name, and the image with its last; by id all of them.
    pub(crate) fn remove_image(&mut self, wanted: &ImageRef) -> Result<Effect> {
        check_reference(wanted, Call::Images)?;
        let Some(mut image) = self.image(wanted).cloned() else { return Ok(Effect::Unchanged) };
        let name = canonical(wanted);
        image.tags.retain(|tag| *tag != name && image.id != *wanted);
        if !image.tags.is_empty() {
            self.images.here.insert(image.id.clone(), image);
            return Ok(Effect::Changed);
        }
        if let Some(user) = self.user_of(&image.id) {
            let used = Error::new(ErrorKind::Conflict, Call::Images.operation(), "an instance uses it");
            return Err(used.with_context("image", wanted).with_context("instance", user));
        }
        self.images.here.remove(&image.id);
        Ok(Effect::Changed)
    }

    /// An instance that was created from this image.
    fn user_of(&self, id: &ImageRef) -> Option<&InstanceId> {
        let is_it = |used: &ImageRef| self.image(used).is_some_and(|used| used.id == *id);
        let user = self.records.values().find(|record| record.design.image.as_ref().is_some_and(is_it));
        user.map(|user| &user.id)
    }

    pub(crate) fn prune_images(&mut self, options: &PruneOptions) -> Pruned {
        let goes = |image: &&ImageInfo| {
            (options.named || image.tags.is_empty())
                && options.labels.iter().all(|(key, value)| image.labels.get(key) == Some(value))
                && self.user_of(&image.id).is_none()
        };
        let gone: Vec<ImageInfo> = self.images.here.values().filter(goes).cloned().collect();
        self.images.here.retain(|id, _| gone.iter().all(|image| image.id != *id));
        let bytes = gone.iter().map(|image| image.bytes).sum();
        Pruned::new(gone.into_iter().map(|image| image.id).collect(), bytes)
    }
}
