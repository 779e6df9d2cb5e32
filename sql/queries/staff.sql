-- name: find_staff :opt Staff
-- What this user may act for now; no row for a buyer, and for a seller of nothing.
-- $1 user_id int8
SELECT u.role, u.seller_id FROM users u
 WHERE u.id = $1 AND (u.role = 'admin' OR u.role = 'seller' AND u.seller_id IS NOT NULL);
