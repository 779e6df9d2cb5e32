-- name: find_staff :opt Staff
-- What this user may act for now; no row for a buyer, and for a seller of nothing.
-- $1 user_id int8
SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1;
