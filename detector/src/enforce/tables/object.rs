//! The kernel object, embedded.

static PLAIN: &[u8] = aya::include_bytes_aligned!(env!("FAIL2XDP_OBJECT_PLAIN"));
static VERBOSE: &[u8] = aya::include_bytes_aligned!(env!("FAIL2XDP_OBJECT_VERBOSE"));

/// The object to load.
pub fn plain() -> &'static [u8] {
    PLAIN
}

/// The object that also writes its reports through aya-log.
pub fn verbose() -> &'static [u8] {
    VERBOSE
}
