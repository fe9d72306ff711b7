//! `action_user`: whom commands run as.
use std::{
    ffi::{CStr, CString},
    ptr,
};

use rustix::{
    fs::{Gid, Uid},
    process::geteuid,
};

use crate::command::User;

/// Bytes of an entry of the user database, and groups of a user, at the most.
const ENTRY: usize = 64 << 10;
const GROUPS: usize = 65_536;

/// Whom commands run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunAs {
    /// As the runner.
    Ourselves,
    /// Somebody else.
    Other(User),
    /// Nobody: the user that is wanted cannot be had, and why.
    Nobody(String),
}

impl RunAs {
    /// The user of this name; `None` is who we are.
    pub(super) fn of(name: Option<&str>) -> RunAs {
        let Some(name) = name else { return RunAs::Ourselves };
        match look_up(name) {
            None => RunAs::Nobody(format!(
                "`action_user = {name}`: there is no such user; correct it, or make the user"
            )),
            Some(user) if user.uid == geteuid() => RunAs::Ourselves,
            Some(_) if !geteuid().is_root() => RunAs::Nobody(format!(
                "`action_user = {name}`: only root can run commands as another user; start the action runner as root or as `{name}`"
            )),
            Some(user) => RunAs::Other(user),
        }
    }
}

/// A user by name or number, as the system knows it.
pub(super) fn look_up(name: &str) -> Option<User> {
    let wanted = CString::new(name).ok()?;
    let mut buffer = vec![0 as libc::c_char; ENTRY];
    // SAFETY: `passwd` is pointers and numbers, for which zeros are values.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = ptr::null_mut();
    // SAFETY: name, entry, buffer with its length, and result live through the call.
    unsafe {
        libc::getpwnam_r(
            wanted.as_ptr(),
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
    }
    if found.is_null() {
        return None;
    }
    let mut groups = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: the name is a string; the kernel's groups are written up to `count` places, which are there.
        let fits = unsafe {
            libc::getgrouplist(wanted.as_ptr(), entry.pw_gid, groups.as_mut_ptr(), &raw mut count)
        };
        if fits >= 0 {
            groups.truncate(count.max(0) as usize);
            break;
        }
        if groups.len() >= GROUPS {
            return None;
        }
        groups.resize(groups.len() * 2, 0);
    }
    // SAFETY: what was found points into `buffer`, which lives, and ends with a NUL.
    let home = unsafe { CStr::from_ptr(entry.pw_dir) };
    Some(User {
        name: name.to_owned(),
        home: home.to_string_lossy().into_owned(),
        uid: Uid::from_raw(entry.pw_uid),
        gid: Gid::from_raw(entry.pw_gid),
        groups: groups.into_iter().map(Gid::from_raw).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_of_the_system() {
        let root = look_up("root").expect("root");
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert!(look_up("nobody").is_some_and(|user| user.uid.as_raw() != 0));
        assert_eq!(look_up("no such user"), None);
        assert!(matches!(RunAs::of(Some("no such user")), RunAs::Nobody(_)));
        assert_eq!(RunAs::of(None), RunAs::Ourselves);
    }
}
