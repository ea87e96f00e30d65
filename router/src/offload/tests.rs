//! What cut, glue, merge and segmentation promise, for every superframe and every pattern of arrival.

mod hostile;
mod merged;
mod pieces;
mod superframe;
