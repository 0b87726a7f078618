//! Kinds, field manager and manners of one store: [`KubeStoreOptions`].

use runtide_core::{Error, ErrorKind, Result, backend::setters};

/// Operation in the errors of options that cannot work.
const OPERATION: &str = "k8s.store.options";
/// Most characters of a field manager's name, which the server sets.
const LONGEST_MANAGER: usize = 128;

/// Treatment of the objects that an object owns, when it is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Propagation {
    /// They are deleted after it, by the cluster.
    #[default]
    Background,
    /// They are deleted before it, which is there until then.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

impl Propagation {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// The kinds that are in a store, where a listing, a watch or a snapshot names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kinds {
    /// Every kind that the server serves with `list` and `watch`, but events, which are a log and no declarations.
    #[default]
    All,
    /// These, each as group and kind; the core group is empty.
    Only(Vec<(String, String)>),
}

impl Kinds {
    /// These kinds, each as group and kind.
    pub fn only<'a>(kinds: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::Only(kinds.into_iter().map(|(group, kind)| (group.to_owned(), kind.to_owned())).collect())
    }
}

/// Kinds, field manager and manners of one store.
///
/// ```
/// use runtide_k8s::{Kinds, KubeStoreOptions};
///
/// let options = KubeStoreOptions::default()
///     .with_field_manager("shop")
///     .with_kinds(Kinds::only([("apps", "Deployment"), ("", "ConfigMap")]));
/// # assert_eq!(options.field_manager, "shop");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KubeStoreOptions {
    /// Name under which the server notes which fields this store applied, `runtide` by default; 1 to 128 characters. It has to stay the
    /// same: a field that one manager applied stays when another ceases to apply it.
    pub field_manager: String,
    /// `true`: fields that other managers own with other values are taken from them. `false`, the default: that is a `Conflict`.
    pub force: bool,
    /// Treatment of the objects that a deleted one owns.
    pub propagation: Propagation,
    /// The kinds that are in the store, where a selector names none.
    pub kinds: Kinds,
}

impl Default for KubeStoreOptions {
    fn default() -> Self {
        Self {
            field_manager: "runtide".to_owned(),
            force: false,
            propagation: Propagation::default(),
            kinds: Kinds::default(),
        }
    }
}

setters!(KubeStoreOptions {
    /// Sets the name under which the server notes which fields this store applied.
    with_field_manager: field_manager: String;
    /// Takes fields that other managers own with other values from them.
    with_force: force;
    /// Sets what becomes of the objects that a deleted one owns.
    with_propagation: propagation: Propagation;
    /// Sets the kinds that are in the store.
    with_kinds: kinds: Kinds;
});

impl KubeStoreOptions {
    pub(super) fn validate(&self) -> Result<()> {
        let manager = &self.field_manager;
        let length = manager.chars().count();
        if length == 0 || length > LONGEST_MANAGER || manager.chars().any(char::is_control) {
            let message = format!("a field manager has 1 to {LONGEST_MANAGER} printable characters");
            return Err(Error::new(ErrorKind::InvalidInput, OPERATION, message).with_context("key", "field_manager"));
        }
        if matches!(&self.kinds, Kinds::Only(kinds) if kinds.is_empty()) {
            let error = Error::new(ErrorKind::InvalidInput, OPERATION, "no kind is named");
            return Err(error.with_context("key", "kinds"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let options = KubeStoreOptions::default;
        for (options, key) in [
            (options().with_field_manager(""), "field_manager"),
            (options().with_field_manager("x".repeat(129)), "field_manager"),
            (options().with_field_manager("a\nb"), "field_manager"),
            (options().with_kinds(Kinds::only([])), "kinds"),
        ] {
            let error = options.validate().unwrap_err();
            assert_eq!((error.kind(), error.fact("key")), (ErrorKind::InvalidInput, Some(key)), "{options:?}");
        }
        options().with_field_manager("ä".repeat(128)).validate().unwrap();
    }
}
