//! A peer that breaks every rule ends its own scan and no other: to everyone whose scan comes next.

