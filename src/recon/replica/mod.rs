//! Pseudo-replica: the noise of any reconstruction by brute force, to judge the analytic noise maps by.
