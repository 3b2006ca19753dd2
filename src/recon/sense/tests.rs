//! SENSE against the plain solution, golden values and the laws.


