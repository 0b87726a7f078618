//! Macros that many files use: text newtypes, option setters, secrets and streams.

/// Newtypes over shared text: cheap to clone, ordered, hashable, a plain string in JSON.
#[doc(hidden)]
#[macro_export]
macro_rules! __names {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Makes a name from the text, unchanged.
            pub fn new(text: impl Into<std::sync::Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }
    )* };
}

/// `with_*` setters: a flag's takes no argument, so that no call site has a bare `true`. `field: T` takes what becomes a `T`;
/// `field = T` what becomes a `T` for an `Option<T>`, as text does for an `Option<String>`.
#[doc(hidden)]
#[macro_export]
macro_rules! __setters {
    ($type:ty { $($(#[$doc:meta])* $setter:ident: $field:ident $(: $value:ty)? $(= $some:ty)? ;)* }) => {
        impl $type { $( $crate::__setters!(@one $(#[$doc])* $setter $field $($value)? $(= $some)?); )* }
    };
    (@one $(#[$doc:meta])* $setter:ident $field:ident = $some:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, value: impl Into<$some>) -> Self {
            self.$field = Some(value.into());
            self
        }
    };
    (@one $(#[$doc:meta])* $setter:ident $field:ident $value:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self, value: impl Into<$value>) -> Self {
            self.$field = value.into();
            self
        }
    };
    (@one $(#[$doc:meta])* $setter:ident $field:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $setter(mut self) -> Self {
            self.$field = true;
            self
        }
    };
}

/// Owned streams over `futures_core::Stream`, with their own `next`, so that no combinator crate is needed.
macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident => $item:ty;)*) => { $(
        $(#[$doc])*
        pub struct $name(std::pin::Pin<Box<dyn futures_core::Stream<Item = crate::error::Result<$item>> + Send>>);

        impl $name {
            /// Wraps any stream of that item.
            pub fn new(inner: impl futures_core::Stream<Item = crate::error::Result<$item>> + Send + 'static) -> Self {
                Self(Box::pin(inner))
            }

            /// The next item; `None` after the end.
            ///
            /// # Cancel safety
            /// Dropping the future loses nothing.
            pub async fn next(&mut self) -> Option<crate::error::Result<$item>> {
                std::future::poll_fn(|cx| self.0.as_mut().poll_next(cx)).await
            }
        }

        impl futures_core::Stream for $name {
            type Item = crate::error::Result<$item>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.0.as_mut().poll_next(cx)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )* };
}

pub(crate) use crate::{__names as names, __setters as setters};
pub(crate) use streams;
