//! "Did you mean", as the kernel's tables have it too.

pub use textbed_kernel::suggest::nearest;
