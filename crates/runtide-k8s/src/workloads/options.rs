//! Conditions of a change of the number of pods: [`ScaleOptions`].

use runtide_core::backend::setters;

/// Conditions on which the number of pods of a workload is set; by default none.
///
/// ```
/// use runtide_k8s::ScaleOptions;
///
/// let options = ScaleOptions::default().with_current(Some(2));
/// # assert_eq!(options.current, Some(2));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScaleOptions {
    /// The very version of the object, [`Workload::version`](crate::Workload::version): nothing of it has changed since, its status included.
    pub version: Option<String>,
    /// The number of pods that it names until now.
    pub current: Option<u32>,
}

setters!(ScaleOptions {
    /// Sets the version that the object must have.
    with_version: version = String;
    /// Sets the number of pods that it must name until now.
    with_current: current: Option<u32>;
});

impl ScaleOptions {
    /// `true` if another version than the one that was looked at will do.
    pub(super) fn looks_again(&self) -> bool {
        self.current.is_some() && self.version.is_none()
    }
}
